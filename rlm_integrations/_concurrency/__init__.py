"""Loops, threads, cleanup: everything that is the same whatever runs on it."""
