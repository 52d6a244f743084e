"""How a run goes from a question to a checked answer."""
