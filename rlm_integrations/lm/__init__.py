"""Models, and how they are called."""
