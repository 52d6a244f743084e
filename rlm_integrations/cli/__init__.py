"""The command line: a file for each command."""

from rlm_integrations.cli.ask import main, parsers

__all__ = [
    "main",
    "parsers",
]
