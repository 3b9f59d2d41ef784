"""Track: what a change to an algorithm really changed.  Two versions run side by side and their facts are compared."""
