"""Findings with their source spans, seen by all workers at once."""
