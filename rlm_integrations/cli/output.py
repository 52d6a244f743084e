"""The output of a command: the result on stdout and in files, messages on stderr."""

import argparse
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult


def say(text: str) -> None:
    """Write a message to stderr; an empty one is left out."""
    from rlm_integrations.terminal import print_whole, printable

    if text:
        print_whole(f"rlm-integrations: {printable(text)}\n")


def check_writable(path: Path, option: str = "--save") -> None:
    """Refuse a file that cannot be written.

    Raises:
        InputError: It is a directory, or may not be written.
    """
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(
            f"{option} {str(path)!r} cannot be written: name a file in a folder that exists"
        )


def deliver(result: "RLMResult", options: argparse.Namespace) -> None:
    """Print the result, if it has anything to print, and save it."""
    try:
        if options.json:
            print_json(result.to_dict())
        elif result.answer or result.citations:
            print_text(readable(result))
    finally:
        if options.save is not None:
            result.save(options.save)


def say_end(result: "RLMResult", options: argparse.Namespace) -> None:
    """Say how a run ended: its failure, its limit, dropped citations, and its summary."""
    from rlm_integrations.engine.show import shortened

    code = exit_codes.exit_code_of(result.stop_reason)
    if code in {exit_codes.MODEL_ERROR, exit_codes.SANDBOX}:
        reason = shortened(result.error or "unknown reason")
        say(f"{result.stop_reason}: {reason}; the output may not be an answer")
    if options.quiet:
        return
    if code == exit_codes.STOPPED:
        found = (
            "this is the best answer so far" if result.answer else "nothing was found until then"
        )
        say(f"stopped by a limit ({result.stop_reason}); {found}")
    if result.dropped_citations:
        reasons = Counter(each.reason for each in result.dropped).most_common()
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        say(
            f"{result.dropped_citations:,} of the model's citations could not be verified, and are"
            f" not shown{f' ({why})' if why else ''}"
        )
    say_summary(result)


def say_summary(result: "RLMResult") -> None:
    """Say in one line what a run took."""
    from rlm_integrations.engine.show import summary

    say(f"{summary(result)}{price(result)}")


def quote_file(file: str) -> str:
    """The name of a file on one line, whatever characters it has."""
    from rlm_integrations.terminal import printable

    return (
        printable(os.fsencode(file).decode(errors="backslashreplace"))
        .replace("\n", "\\n")
        .replace("\t", "\\t")
    )


def one_line(text: str, most: int | None = None) -> str:
    """The text on one line, without what could change a terminal, and cut."""
    from rlm_integrations.terminal import printable

    return " ".join(printable(text).split())[:most]


def readable(result: "RLMResult") -> str:
    """The answer, and a line for each citation: file and line, or the source; place; and quote as
    a JSON string.
    """
    lines = []
    for number, each in enumerate(result.citations, 1):
        quote = json.dumps(each.quote, ensure_ascii=False)
        where = quote_file(each.location or each.source)
        lines.append(f"[{number}] {where} {each.start}-{each.end}: {quote}")
    return "\n".join([str(result.answer), *([""] if lines else []), *lines])


def price(result: "RLMResult") -> str:
    """What a run cost, as the end of a line; "" if its models cost nothing."""
    if set(result.spent.by_model) <= {"offline"}:
        return ""
    return ", cost unknown" if result.cost is None else f", ${result.cost:.4f}"


class PipeClosedError(Exception):
    """The reader of stdout has closed it, such as `head`."""


def prepare_stdout() -> None:
    """Have stdout take every text, in any encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The locale "C" does not choose an encoding; ASCII from PYTHONIOENCODING is kept.
        is_default = sys.stdout.encoding.lower() in {
            "ascii",
            "ansi_x3.4-1968",
        } and not os.environ.get("PYTHONIOENCODING")
        sys.stdout.reconfigure(encoding="utf-8" if is_default else None, errors="backslashreplace")


def print_text(text: str) -> None:
    """Write to stdout; what could change a terminal is escaped if it is one.

    Raises:
        PipeClosedError: Its reader has closed it.
    """
    from rlm_integrations.terminal import printable

    if sys.stdout is not None and sys.stdout.isatty():
        text = printable(text)
    print_lines([text])


def print_json(value: Any) -> None:
    """Write a value as JSON in ASCII, on one line.

    Raises:
        PipeClosedError: The reader of stdout has closed it.
    """
    from rlm_integrations._json import to_plain

    print_lines([json.dumps(value, default=to_plain)])


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout as they come, unchanged.

    Raises:
        PipeClosedError: The reader of stdout has closed it.
    """
    try:
        for line in lines:
            print(line)  # noqa: T201 - this is a command
        print(end="", flush=True)  # noqa: T201
    except OSError as error:
        # The interpreter flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise PipeClosedError from None
        raise
