"""The command line."""

from rlm_integrations.cli.main import build_parser, main

__all__ = [
    "build_parser",
    "main",
]
