"""A language model proposes what is wrong with a program, and running the program proves it, or not."""
