"""The seven steps of a reading, each a function from what is known to blocks."""
