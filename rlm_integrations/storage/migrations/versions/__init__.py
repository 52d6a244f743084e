"""One module per version of the schema, the oldest first. None is changed once it is released."""
