"""Runs a stranger's program under observation, in a child process that can harm nothing."""
