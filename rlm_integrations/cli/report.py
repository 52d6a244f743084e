"""The command `report`, which makes the page of a run."""

import argparse
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_files, add_storage
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.output import check_writable, print_text, say
from rlm_integrations.cli.stored import open_storage
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.result import RLMResult


_RUN_HELP = "a file that --save wrote, or the id of a stored run, as `runs` lists it"


def add_report(commands: Any) -> None:
    """Add the command."""
    report: argparse.ArgumentParser = commands.add_parser(
        "report",
        help="make a page that shows a run",
        description=(
            "Make a page that shows a run: one HTML file that needs no network. It contains the"
            " whole record, and the text of the document if the storage has it or --document"
            " names it."
        ),
        allow_abbrev=False,
    )
    report.add_argument("target", metavar="RUN", help=_RUN_HELP)
    report.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page; by default RUN_ID.html in this folder",
    )
    report.add_argument("--open", action="store_true", help="show the page in the browser")
    report.add_argument(
        "--document",
        nargs="+",
        action="extend",
        default=[],
        dest="files",
        metavar="FILE",
        help="the files of the run, in the order of its `ask`",
    )
    add_files(report)
    add_storage(report, DEFAULT_STORAGE)
    report.set_defaults(run=make_report)


def make_report(options: argparse.Namespace) -> int:
    """Write the page of a run, and print its path; the exit code."""
    with _run_and_document(options) as (result, stored):
        output = options.output or Path(f"{_file_name(result.run_id)}.html")
        check_writable(output, "--output")
        with open_corpus(options) if options.files else nullcontext(stored) as corpus:
            try:
                result.to_html(output, context=corpus)
            except InputError as error:
                if corpus is None or options.files:
                    raise
                say(f"the page has no text of the document: {error}")
                result.to_html(output)
    print_text(str(output))
    if options.open and not webbrowser.open(output.resolve().as_uri()):
        say("there is no browser to open it with")
    return exit_codes.ANSWERED


@contextmanager
def _run_and_document(
    options: argparse.Namespace,
) -> Iterator[tuple["RLMResult", "Corpus | None"]]:
    """The run that the user names, and its document if the storage has it."""
    from rlm_integrations.result import RLMResult

    path = Path(options.target)
    if path.suffix == ".json" or path.is_file():
        if not path.is_file():
            raise InputError(f"there is no file {options.target!r}")
        yield RLMResult.load(path), None
        return
    if not (Path(options.storage).is_dir() or "://" in options.storage):
        raise InputError(
            f"there is neither a file {options.target!r} nor a storage in {options.storage!r}"
        )
    with open_storage(options.storage) as storage:
        result = storage.run(options.target)
        with storage.document(options.target) or nullcontext() as corpus:
            yield result, corpus


def _file_name(run_id: str) -> str:
    """A name of a file for any run; ids of other programs may have any characters."""
    return (
        "".join(each if each.isalnum() or each in "-_." else "_" for each in run_id[:80]) or "run"
    )
