"""The command line."""

from rlm_integrations.cli.arguments import parsers
from rlm_integrations.cli.ask import main

__all__ = [
    "main",
    "parsers",
]
