"""The command `rlm-integrations diff A B`, which compares two runs."""

import argparse
from pathlib import Path
from typing import Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_json, add_storage
from rlm_integrations.cli.output import check_writable, print_json, print_text
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import RUN_HELP, load_run


def add_diff(commands: Any) -> None:
    """Add the command."""
    diff: Parser = commands.add_parser(
        "diff",
        help="compare two runs",
        description=(
            "Compare two runs: settings, totals and answers, and what both did at each place of"
            " their trees."
        ),
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
    add_json(diff, "print the comparison as JSON")
    add_storage(diff, DEFAULT_STORAGE)
    diff.examples = ("diff 1f0c9a3e57d24b1c run.json", "diff run.json other.json -o diff.html")
    diff.set_defaults(run=compare_runs)


def compare_runs(options: argparse.Namespace) -> int:
    """Print or write the comparison; the exit code."""
    if options.output is not None:
        check_writable(options.output, "--output")
    one, other = (load_run(each, options.storage) for each in (options.one, options.other))
    compared = one.diff(other)
    if options.output is not None:
        compared.to_html(options.output)
    if options.json:
        print_json(compared.to_dict())
    elif options.output is not None:
        print_text(str(options.output))
    else:
        print_text(str(compared))
    return exit_codes.ANSWERED
