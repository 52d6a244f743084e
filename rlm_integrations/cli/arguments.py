"""The arguments of the command line."""

import argparse
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from rlm_integrations.cli import exit_codes
from rlm_integrations.errors import InputError

# With a key and without --model: it writes good enough code, at a low price.
DEFAULT_MODEL: Final = "gpt-5-mini"
DEFAULT_STORAGE: Final = "runs/"


class Parsers(NamedTuple):
    """The parser of the whole command line, and one for each command."""

    whole: argparse.ArgumentParser
    ask: argparse.ArgumentParser
    resume: argparse.ArgumentParser
    runs: argparse.ArgumentParser


def parsers() -> Parsers:
    """All parsers."""
    whole = argparse.ArgumentParser(
        prog="rlm-integrations",
        description="Ask questions about documents larger than any model's context window.",
        allow_abbrev=False,
    )
    whole.add_argument(
        "--version", action="version", version=f"%(prog)s {version('rlm-integrations')}"
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return Parsers(whole, _ask(commands), _resume(commands), _runs(commands))


def _ask(commands: Any) -> argparse.ArgumentParser:
    ask: argparse.ArgumentParser = commands.add_parser(
        "ask",
        help="answer a question about one or several files",
        description=(
            "Answer a question about files. The answer and its citations go to stdout,"
            " everything else to stderr."
        ),
        usage='%(prog)s FILE [FILE ...] "QUESTION" [options]',
        epilog=exit_codes.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    ask.add_argument(
        "words",
        nargs="+",
        metavar="FILE … QUESTION",
        help="text files, pipes such as <(…), '-' for stdin, and last the question",
    )
    _add_models(ask)
    _add_budget(ask)
    run = _add_run(ask)
    _add_storage(run, None)
    _add_files(ask)
    _add_output(ask)
    return ask


def _resume(commands: Any) -> argparse.ArgumentParser:
    resume: argparse.ArgumentParser = commands.add_parser(
        "resume",
        help="go on with a run that did not end",
        description=(
            "Go on with a stored run; no call whose answer is stored is made again. The result of"
            " a run that has ended is printed again."
        ),
        allow_abbrev=False,
    )
    resume.add_argument("run_id", metavar="RUN_ID", help="the run, as `runs` lists it")
    _add_storage(resume, DEFAULT_STORAGE)
    models = resume.add_argument_group("models")
    models.add_argument(
        "--base-url", metavar="URL", help="API of the run's models, if it is not the default one"
    )
    _add_output(resume)
    return resume


def _runs(commands: Any) -> argparse.ArgumentParser:
    runs: argparse.ArgumentParser = commands.add_parser(
        "runs",
        help="list stored runs",
        description="List stored runs, the newest first.",
        allow_abbrev=False,
    )
    runs.add_argument("query", nargs="?", default="", metavar="WORDS", help="part of the question")
    _add_storage(runs, DEFAULT_STORAGE)
    runs.add_argument(
        "--limit", type=_count, default=100, metavar="N", help="how many at most (%(default)s)"
    )
    runs.add_argument("--json", action="store_true", help="print a JSON list")
    return runs


def _add_storage(parser: Any, default: str | None) -> None:
    kept = "keep the run" if default is None else f"where runs are kept ({default})"
    parser.add_argument(
        "--storage",
        metavar="PLACE",
        default=default,
        help=f"{kept}: a folder, or the URL of a database",
    )


def _add_models(ask: argparse.ArgumentParser) -> None:
    models = ask.add_argument_group("models")
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
    models.add_argument(
        "--base-url",
        metavar="URL",
        help="API of both models, such as http://localhost:11434/v1",
    )


def _add_budget(ask: argparse.ArgumentParser) -> None:
    budget = ask.add_argument_group("budget")
    budget.add_argument("--max-calls", type=_count, metavar="N", help="calls of models")
    budget.add_argument("--max-tokens", type=_count, metavar="N", help="input and output tokens")
    budget.add_argument("--max-cost", type=_amount, metavar="USD", help="US dollars")
    budget.add_argument("--max-seconds", type=_amount, metavar="S", help="wall time")


def _add_run(ask: argparse.ArgumentParser) -> Any:
    run = ask.add_argument_group("run")
    run.add_argument(
        "--max-iterations",
        type=_count,
        default=20,
        metavar="N",
        help="turns of the root model (%(default)s)",
    )
    run.add_argument(
        "--max-depth",
        type=_count,
        default=1,
        metavar="N",
        help="levels of runs (%(default)s: children are plain calls)",
    )
    run.add_argument(
        "--max-parallel",
        type=_count,
        default=10,
        metavar="N",
        help="concurrent calls (%(default)s)",
    )
    run.add_argument(
        "--store-mode",
        choices=["shared", "none"],
        default="shared",
        help="whether the code has a store (%(default)s)",
    )
    run.add_argument(
        "--sandbox",
        choices=["process", "inprocess"],
        default="process",
        help="where the code runs (%(default)s)",
    )
    return run


def _add_files(ask: argparse.ArgumentParser) -> None:
    files = ask.add_argument_group("files")
    files.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="encoding of the files (%(default)s)"
    )
    files.add_argument(
        "--errors",
        default="strict",
        metavar="HOW",
        help="handling of invalid bytes: strict, replace … (%(default)s)",
    )


def _add_output(ask: argparse.ArgumentParser) -> None:
    output = ask.add_argument_group("output")
    output.add_argument(
        "--json",
        action="store_true",
        help="print the whole result as JSON, also if the run fails",
    )
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


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return number


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number greater than 0, not {text!r}")
    return number


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command; those of `ask` have `files` and `question`. On wrong usage the
    process exits.

    Raises:
        InputError: The question is empty, or is not valid UTF-8.
    """
    all_parsers = parsers()
    whole, ask = all_parsers.whole, all_parsers.ask
    # argparse does not know the words that follow an option.
    options, more = whole.parse_known_args(argv)
    if options.command != "ask":
        whole.parse_args(argv)  # refuses what is left
        return options
    if unknown := [word for word in more if word.startswith("-") and word != "-"]:
        ask.error(f"there is no option {unknown[0]} (a word that begins with '-' goes after '--')")
    words: list[str] = [*options.words, *more]
    options.files, options.question = words[:-1], _decode(words[-1])
    if not options.files:
        ask.error("a file and a question are needed")
    if options.files.count("-") > 1:
        ask.error("stdin ('-') can be read once")
    if not options.question.strip():
        raise InputError("the question is empty")
    return options


def _decode(word: str) -> str:
    """A word of the command line as UTF-8, which Python has not decoded if the locale is "C"."""
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise InputError(f"the question is not valid UTF-8: {word!r}") from error
