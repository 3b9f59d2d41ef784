"""Reads other people's code: what it is, what it does when it runs, what is wrong with it.  Imports no model code."""
