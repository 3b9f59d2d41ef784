"""The metrics that ship, grouped in files by what they need; each file registers its own."""
