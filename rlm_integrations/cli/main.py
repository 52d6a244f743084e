"""The command line: which command is run, and how errors become exit codes."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import split_words
from rlm_integrations.cli.ask import add_ask
from rlm_integrations.cli.carry import add_export, add_import
from rlm_integrations.cli.completion import SCRIPTS, complete
from rlm_integrations.cli.diff import add_diff
from rlm_integrations.cli.jobs import add_jobs
from rlm_integrations.cli.output import PipeClosedError, prepare_stdout, say
from rlm_integrations.cli.parser import Parser, PrintAndExit, commands_of
from rlm_integrations.cli.report import add_report
from rlm_integrations.cli.resume import add_resume
from rlm_integrations.cli.rewording import reword
from rlm_integrations.cli.runs import add_runs
from rlm_integrations.cli.show import add_show
from rlm_integrations.cli.store import add_store
from rlm_integrations.cli.submit import add_submit
from rlm_integrations.cli.upkeep import add_upkeep
from rlm_integrations.cli.worker import add_worker
from rlm_integrations.errors import (
    InputError,
    MissingExtraError,
    ModelError,
    RLMError,
    SandboxError,
)
from rlm_integrations.run_setup import VERSION

# Each adds a command, in the order of the help
_COMMANDS = (
    add_ask,
    add_resume,
    add_runs,
    add_show,
    add_report,
    add_diff,
    add_store,
    add_submit,
    add_worker,
    add_jobs,
    add_export,
    add_import,
    add_upkeep,
)
_DEBUG: Final = "--debug"
# The first class that an error is of decides
_EXIT_CODES: Final = {
    InputError: exit_codes.BAD_INPUT,
    MissingExtraError: exit_codes.BAD_INPUT,
    ModelError: exit_codes.MODEL_ERROR,
    SandboxError: exit_codes.SANDBOX,
    RLMError: exit_codes.FAILED,
    OSError: exit_codes.FAILED,
}


def build_parser() -> Parser:
    """The parser of the whole command line."""
    whole = Parser(
        prog="rlm-integrations",
        description="Ask questions about documents larger than any model's context window.",
    )
    whole.add_argument(
        "--version",
        action=PrintAndExit,
        make=lambda parser, _: f"{parser.prog} {VERSION}",
        help="show the version and exit",
    )
    whole.add_argument(
        "--print-completion",
        action=PrintAndExit,
        nargs=None,
        choices=list(SCRIPTS),
        make=lambda _, shell: SCRIPTS[shell],
        help="print the script that completes commands in a shell, and exit",
    )
    whole.add_argument(  # for these scripts
        "--complete",
        action=PrintAndExit,
        nargs=argparse.REMAINDER,
        make=lambda parser, words: "\n".join(complete(parser, words or [""])),
        help=argparse.SUPPRESS,
    )
    whole.examples = (
        'ask archive.txt "Who approved the Ravenna dam?"',
        'ask archive.txt "Who approved the Ravenna dam?" --storage runs/',
        'runs "Ravenna"',
        "ask --help",
    )
    whole.notes = exit_codes.HELP
    commands = whole.add_commands("command")
    for add in _COMMANDS:
        add(commands)
    for each in commands_of(whole):
        each.add_argument(_DEBUG, action="store_true", help="show the traceback of an error")
        each.set_defaults(parser=each)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. On wrong usage the process exits."""
    words = sys.argv[1:] if argv is None else argv
    prepare_stdout()
    try:
        options = _parse(words)
        code: int = options.run(options)
    except KeyboardInterrupt:
        say("interrupted")
        return exit_codes.INTERRUPTED
    except PipeClosedError:
        return exit_codes.PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the user is told in one line
        if _DEBUG in words:
            say(traceback.format_exc())
        message, code = _outcome(error, words)
        say(" ".join(message.splitlines()))
    return code


def _parse(words: Sequence[str]) -> argparse.Namespace:
    options, more = build_parser().parse_known_args(words)
    if "words" in options:
        split_words(options.parser, options, more)
        return options
    if len(more) == 1 and not more[0].startswith("-") and getattr(options, "query", None) == "":
        # argparse has taken it for absent where an option comes before it
        options.query = more[0]
    elif more:
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    return options


def _outcome(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    """What the user is told of an error, and the exit code."""
    for kind, code in _EXIT_CODES.items():
        if isinstance(error, kind):
            return reword(str(error)), code
    if isinstance(error, MemoryError):
        return "there is not enough memory", exit_codes.FAILED
    # Python has such bytes as halves of surrogate pairs, which databases and models refuse
    garbled = [word for word in words if not _is_text(word)]
    if garbled and isinstance(error, ValueError):
        return f"{garbled[0]!r} is not valid UTF-8", exit_codes.BAD_INPUT
    return (
        f"a defect of this program: {type(error).__name__}: {error};"
        f" run it again with {_DEBUG}, and report the traceback"
    ), exit_codes.FAILED


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeError:
        return False
    return True
