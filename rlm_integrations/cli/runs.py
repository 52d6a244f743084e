"""The command `rlm-integrations runs`."""

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_json, add_storage, count
from rlm_integrations.cli.output import one_line, print_json, print_text
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.serving import add_serve, check_open, served
from rlm_integrations.cli.stored import existing_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlm_integrations.storage import RunInfo, Storage

_QUESTION_CHARS = 60  # of a question in the list


def add_runs(commands: Any) -> None:
    """Add the command."""
    runs: Parser = commands.add_parser(
        "runs",
        help="list stored runs",
        description="List stored runs, the newest first.",
    )
    runs.add_argument("query", nargs="?", default="", metavar="WORDS", help="part of the question")
    add_storage(runs, DEFAULT_STORAGE)
    runs.add_argument(
        "--limit", type=count, default=100, metavar="N", help="how many at most (%(default)s)"
    )
    add_json(runs, "print a JSON list")
    add_serve(
        runs,
        "list the runs in the browser and show each, those that run while they happen, at an"
        " address on this machine that stderr names, until Ctrl-C",
    )
    runs.examples = (
        'runs "Ravenna" --limit 10',
        "runs --json --storage runs/",
        "runs --serve --open",
    )
    runs.set_defaults(run=list_runs)


def list_runs(options: argparse.Namespace) -> int:
    """Print the runs of a storage, and show them in the browser if that is wanted; the exit
    code.
    """
    check_open(options)
    with existing_storage(options.storage) as storage:

        def listed() -> "list[RunInfo]":
            return storage.runs(options.query, limit=options.limit)

        _print(listed(), options)
        if options.serve:
            _serve(storage, listed, options)
    return exit_codes.ANSWERED


def _print(runs: "list[RunInfo]", options: argparse.Namespace) -> None:
    if options.json:
        print_json(runs)
        return
    for run in runs:
        question = one_line(run.question, _QUESTION_CHARS)
        print_text(
            f"{run.run_id}  {run.created:%Y-%m-%d %H:%M}  {shown_status(run):<15} {question}"
        )


def _serve(
    storage: "Storage", listed: "Callable[[], list[RunInfo]]", options: argparse.Namespace
) -> None:
    """Show the runs in the browser until Ctrl-C."""
    from rlm_integrations.report.live import StorageSite

    site = StorageSite(storage, listed)
    words = "until Ctrl-C, the runs are at"
    with suppress(KeyboardInterrupt), served(options, site, words) as (server, _):
        server.wait()


def shown_status(run: "RunInfo") -> str:
    """The status of a run; "interrupted" if no process runs it any more."""
    return "interrupted" if run.status == "running" and not run.is_owned else run.status
