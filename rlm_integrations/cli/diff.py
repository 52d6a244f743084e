"""The command `rlm-integrations diff A B`, which compares two runs."""

import argparse
import json
from pathlib import Path
from typing import Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_storage
from rlm_integrations.cli.output import check_writable, print_text
from rlm_integrations.cli.stored import RUN_HELP, load_run


def add_diff(commands: Any) -> None:
    """Add the command."""
    diff: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="compare two runs",
        description=(
            "Compare two runs: settings, totals and answers, and what both did at each place of"
            " their trees."
        ),
        allow_abbrev=False,
    )
    diff.add_argument("one", metavar="A", help=RUN_HELP)
    diff.add_argument("other", metavar="B", help="another run, named likewise")
    diff.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write the comparison as a page, and print its path",
    )
    diff.add_argument("--json", action="store_true", help="print the comparison as JSON")
    add_storage(diff, DEFAULT_STORAGE)
    diff.set_defaults(run=compare_runs)


def compare_runs(options: argparse.Namespace) -> int:
    """Print or write the comparison; the exit code."""
    from rlm_integrations.engine.show import printable

    if options.output is not None:
        check_writable(options.output, "--output")
    one, other = (load_run(each, options.storage) for each in (options.one, options.other))
    compared = one.diff(other)
    if options.output is not None:
        compared.to_html(options.output)
    if options.json:
        print_text(json.dumps(compared.to_dict()))
    elif options.output is not None:
        print_text(str(options.output))
    else:
        print_text(printable(str(compared)))
    return exit_codes.ANSWERED
