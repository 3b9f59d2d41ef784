"""Observers: each patches one part of torch and records what the user's program does with it."""
