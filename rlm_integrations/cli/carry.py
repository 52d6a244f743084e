"""The commands `rlm-integrations export` and `import`, which carry a run to another storage."""

import argparse
from pathlib import Path
from typing import Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_json, add_storage
from rlm_integrations.cli.output import check_writable, print_json, print_text
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import existing_storage, open_storage
from rlm_integrations.errors import InputError


def add_export(commands: Any) -> None:
    """Add the command."""
    export: Parser = commands.add_parser(
        "export",
        help="write a stored run to a file",
        description=(
            "Write a stored run with its document, its record and its result to a zip file, which"
            " `import` reads into another storage of any kind."
        ),
    )
    export.add_argument("run_id", metavar="RUN_ID", help="the run, as `runs` lists it")
    export.add_argument("file", type=Path, metavar="FILE.zip", help="the file to write")
    _add_options(export)
    export.examples = ("export 1f0c9a3e57d24b1c dam.zip",)
    export.set_defaults(run=export_run)


def add_import(commands: Any) -> None:
    """Add the command."""
    parser: Parser = commands.add_parser(
        "import",
        help="read a run from a file into a storage",
        description=(
            "Read a run from a file that `export` wrote into a storage, where it is listed, shown"
            " and resumed like any other. Its id is printed."
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE.zip", help="the file to read")
    _add_options(parser)
    parser.examples = ("import dam.zip --storage team/",)
    parser.set_defaults(run=import_run)


def _add_options(parser: Parser) -> None:
    add_storage(parser, DEFAULT_STORAGE)
    add_json(parser)


def export_run(options: argparse.Namespace) -> int:
    """Write the file; the exit code."""
    check_writable(options.file, "FILE.zip")
    with existing_storage(options.storage) as storage:
        storage.export(options.run_id, options.file)
    return _say(options, options.run_id, str(options.file))


def import_run(options: argparse.Namespace) -> int:
    """Read the file; the exit code."""
    if not options.file.is_file():  # before a storage is created
        raise InputError(f"there is no file {str(options.file)!r}")
    with open_storage(options.storage) as storage:
        run_id = storage.import_run(options.file)
    return _say(options, run_id, run_id)


def _say(options: argparse.Namespace, run_id: str, text: str) -> int:
    if options.json:
        print_json({"run_id": run_id, "file": str(options.file)})
    else:
        print_text(text)
    return exit_codes.ANSWERED
