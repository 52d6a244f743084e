"""The command line: which command is run, and how errors become exit codes."""

import argparse
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import split_words
from rlm_integrations.cli.ask import add_ask
from rlm_integrations.cli.carry import add_export, add_import
from rlm_integrations.cli.diff import add_diff
from rlm_integrations.cli.jobs import add_jobs
from rlm_integrations.cli.output import say
from rlm_integrations.cli.report import add_report
from rlm_integrations.cli.resume import add_resume
from rlm_integrations.cli.rewording import reword
from rlm_integrations.cli.runs import add_runs
from rlm_integrations.cli.show import add_show
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

# Each adds a command, in the order of the help
_COMMANDS = (
    add_ask,
    add_resume,
    add_runs,
    add_show,
    add_submit,
    add_worker,
    add_jobs,
    add_report,
    add_diff,
    add_export,
    add_import,
    add_upkeep,
)


class Parsers(NamedTuple):
    """The parser of the whole command line, and one for each command."""

    whole: argparse.ArgumentParser
    commands: Mapping[str, argparse.ArgumentParser]


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
    for add in _COMMANDS:
        add(commands)
    return Parsers(whole, commands.choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. On wrong usage the process exits."""
    try:
        options = _parse(argv)
        code: int = options.run(options)
    except KeyboardInterrupt:
        return _fail("interrupted", exit_codes.INTERRUPTED)
    except (InputError, MissingExtraError) as error:
        return _fail(reword(str(error)), exit_codes.BAD_INPUT)
    except ModelError as error:
        return _fail(str(error), exit_codes.MODEL_ERROR)
    except SandboxError as error:
        return _fail(str(error), exit_codes.SANDBOX)
    except (RLMError, OSError) as error:
        return _fail(str(error), exit_codes.FAILED)
    return code


def _fail(message: str, code: int) -> int:
    say(message)
    return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    whole, commands = parsers()
    options, more = whole.parse_known_args(argv)
    if "words" in options:
        split_words(commands[options.command], options, more)
    else:
        whole.parse_args(argv)  # refuses what is left
    return options
