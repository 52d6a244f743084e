"""Event loops, threads and cleanup, shared by every part of the library."""
