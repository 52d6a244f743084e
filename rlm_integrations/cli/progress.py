"""Progress on the terminal while a command runs."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_integrations.events import Hook


def run_lines(options: argparse.Namespace) -> "Hook | None":
    """A hook that shows runs as lines on stderr; None without a terminal, and with `--quiet` or
    `--verbose`.
    """
    from rlm_integrations.terminal import has_terminal

    if options.quiet or getattr(options, "verbose", False) or not has_terminal():
        return None
    from rlm_integrations.engine.progress import RunLines

    return RunLines(keep=False)  # commands print their own summary
