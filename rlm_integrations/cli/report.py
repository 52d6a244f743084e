"""The command `rlm-integrations report RUN`, which makes the page of a run."""

import argparse
import webbrowser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import (
    DEFAULT_STORAGE,
    add_document,
    add_files,
    add_json,
    add_storage,
)
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.output import check_writable, print_json, print_text, say
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import RUN_HELP, load_document, load_run
from rlm_integrations.errors import InputError


def add_report(commands: Any) -> None:
    """Add the command."""
    report: Parser = commands.add_parser(
        "report",
        help="make a page that shows a run",
        description=(
            "Make a page that shows a run: one HTML file that needs no network. It contains the"
            " whole record, and the text of the document if the storage has it or --document"
            " names it."
        ),
    )
    report.add_argument("target", metavar="RUN", help=RUN_HELP)
    report.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page; by default RUN_ID.html in this folder",
    )
    report.add_argument("--open", action="store_true", help="show the page in the browser")
    add_document(report, "the files of the run, in the order of its `ask`")
    add_files(report)
    add_storage(report, DEFAULT_STORAGE)
    add_json(report, "print the page's path and the run's id as JSON")
    report.examples = (
        "report 1f0c9a3e57d24b1c --open",
        "report run.json --document archive.txt -o dam.html",
    )
    report.set_defaults(run=make_report)


def make_report(options: argparse.Namespace) -> int:
    """Write the page of a run, and print its path; the exit code."""
    result = load_run(options.target, options.storage)
    output = options.output or Path(f"{_file_name(result.run_id)}.html")
    check_writable(output, "--output")
    if options.files:
        with open_corpus(options) as corpus:
            result.to_html(output, context=corpus)
    else:
        with load_document(options.target, options.storage) or nullcontext() as stored:
            try:
                result.to_html(output, context=stored)
            except InputError as error:
                if stored is None:
                    raise
                say(f"the page has no text of the document: {error}")
                result.to_html(output)
    if options.json:
        print_json({"run_id": result.run_id, "file": str(output)})
    else:
        print_text(str(output))
    if options.open and not webbrowser.open(output.resolve().as_uri()):
        say("there is no browser to open it with")
    return exit_codes.ANSWERED


def _file_name(run_id: str) -> str:
    """The name of a file for a run; ids may have any characters."""
    return (
        "".join(each if each.isalnum() or each in "-_." else "_" for each in run_id[:80]) or "run"
    )
