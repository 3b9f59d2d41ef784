"""Explains code in seven steps: what it is, what it does, how it learns, what to make of its results."""
