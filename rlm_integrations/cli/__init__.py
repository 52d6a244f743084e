"""The command line."""

from rlm_integrations.cli.main import main, parsers

__all__ = [
    "main",
    "parsers",
]
