"""Arguments that several commands have."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rlm_integrations.cli.parser import Parser, PrintAndExit
from rlm_integrations.errors import InputError

# With a key and without --model: it writes good enough code, at a low price.
DEFAULT_MODEL: Final = "gpt-5-mini"
DEFAULT_STORAGE: Final = "runs/"


def add_storage(parser: Any, default: str | None) -> None:
    """Add `--storage`; without a default the run is not stored."""
    kept = "keep the run" if default is None else f"where runs are kept ({default})"
    parser.add_argument(
        "--storage",
        metavar="PLACE",
        default=default,
        help=f"{kept}: a folder, or the URL of a database",
    )


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add how files are read as text."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="encoding of the files (%(default)s)"
    )
    files.add_argument(
        "--errors",
        default="strict",
        metavar="HOW",
        help="handling of invalid bytes: strict, replace … (%(default)s)",
    )


def add_json(parser: Any, help_text: str = "print JSON") -> None:
    """Add `--json`, and `--json-schema`, which describes what it prints."""
    parser.add_argument("--json", action="store_true", help=help_text)
    parser.add_argument(
        "--json-schema",
        action=PrintAndExit,
        make=_json_schema,
        help="print the JSON schema of what --json prints, and exit",
    )


def _json_schema(parser: Parser, _: Any) -> str:
    from rlm_integrations.cli.schemas import schema_of

    return json.dumps(schema_of(parser.path), indent=2)


def add_document(parser: Parser, help_text: str) -> None:
    """Add `--document`, which names the files of a run."""
    parser.add_argument(
        "--document",
        nargs="+",
        action="extend",
        default=[],
        dest="files",
        metavar="FILE",
        help=help_text,
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add how the result of a run is shown."""
    output = parser.add_argument_group("output")
    add_json(output, "print the whole result as JSON, also if the run fails")
    output.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the whole result to a file as JSON, also if the run fails",
    )
    loud = output.add_mutually_exclusive_group()
    loud.add_argument(
        "--verbose", action="store_true", help="show the code and output of each turn"
    )
    loud.add_argument("--quiet", action="store_true", help="show errors only")


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add the files and the question; see `split_words`."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="FILE … QUESTION",
        help="files, folders, pipes such as <(…), '-' for stdin, and last the question",
    )


def add_models(parser: argparse.ArgumentParser) -> Any:
    """Add the names of the models; the group."""
    models = parser.add_argument_group("models")
    models.add_argument(
        "--model",
        metavar="NAME",
        help=(
            "root model, which writes the code; by default"
            f" {DEFAULT_MODEL} with OPENAI_API_KEY, else offline"
        ),
    )
    models.add_argument(
        "--sub-model",
        metavar="NAME",
        help="model that the code calls; by default the root model",
    )
    return models


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add the limits of what a run may spend."""
    budget = parser.add_argument_group("budget")
    budget.add_argument("--max-calls", type=count, metavar="N", help="calls of models")
    budget.add_argument("--max-tokens", type=count, metavar="N", help="input and output tokens")
    budget.add_argument("--max-cost", type=amount, metavar="USD", help="US dollars")
    budget.add_argument("--max-seconds", type=amount, metavar="S", help="wall time")


def add_run(parser: argparse.ArgumentParser) -> Any:
    """Add the other options of a run; the group."""
    run = parser.add_argument_group("run")
    run.add_argument(
        "--max-iterations",
        type=count,
        default=20,
        metavar="N",
        help="turns of the root model (%(default)s)",
    )
    run.add_argument(
        "--max-depth",
        type=count,
        default=1,
        metavar="N",
        help="levels of runs (%(default)s: children are plain calls)",
    )
    run.add_argument(
        "--max-parallel",
        type=count,
        default=10,
        metavar="N",
        help="concurrent calls (%(default)s)",
    )
    run.add_argument(
        "--store-mode",
        choices=["auto", "shared", "none"],
        default="auto",
        help="store for the code; auto: models are told of it from --max-depth 2 on (%(default)s)",
    )
    run.add_argument(
        "--instructions",
        metavar="TEXT",
        help="your own words for the system prompt, such as domain and tone",
    )
    run.add_argument(
        "--structured",
        action="store_true",
        help="the root model answers in a JSON schema, for models that break fences",
    )
    run.add_argument(
        "--require-coverage",
        type=share,
        metavar="SHARE",
        help="share of the files that models must read before an answer is taken, such as 1",
    )
    return run


def add_cache(parser: Any) -> None:
    """Add whether calls of earlier runs are used."""
    parser.add_argument(
        "--cache",
        action="store_true",
        help="answer calls that an earlier run in the storage made from its record",
    )


def add_sandbox(parser: Any, text: str) -> None:
    """Add where model code runs, with this help."""
    parser.add_argument("--sandbox", choices=["process", "inprocess"], default="process", help=text)


def count(text: str) -> int:
    """An integer of at least 1."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return number


def amount(text: str) -> float:
    """A number greater than 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number greater than 0, not {text!r}")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return number


def split_words(
    parser: argparse.ArgumentParser, options: argparse.Namespace, more: Sequence[str]
) -> None:
    """Set `files` and `question` from the words of the command. On wrong usage the process exits.

    Args:
        parser: The command's parser.
        options: Its options, with `words`.
        more: What argparse does not know: the words that follow an option.

    Raises:
        InputError: The question is empty, or is not valid UTF-8.
    """
    if unknown := [word for word in more if word.startswith("-") and word != "-"]:
        parser.error(
            f"there is no option {unknown[0]} (a word that begins with '-' goes after '--')"
        )
    words: list[str] = [*options.words, *more]
    options.files, options.question = words[:-1], _decode(words[-1])
    if not options.files:
        parser.error("a file and a question are needed")
    if options.files.count("-") > 1:
        parser.error("stdin ('-') can be read once")
    if options.cache and options.storage is None:
        parser.error("--cache needs --storage, where replies are kept")
    if not options.question.strip():
        raise InputError("the question is empty")


def _decode(word: str) -> str:
    """A word of the command line as UTF-8, which Python has not decoded if the locale is "C"."""
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise InputError(f"the question is not valid UTF-8: {word!r}") from error
