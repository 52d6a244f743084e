"""The command `rlm-integrations ask FILE… "question"`.

The answer goes to stdout, everything else to stderr.
"""

import argparse
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import parse_arguments
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.models import build_rlm, choose_model
from rlm_integrations.cli.output import check_writable, deliver, say, say_end, say_summary
from rlm_integrations.cli.rewording import reword
from rlm_integrations.cli.stored import list_runs, open_storage, resume_run
from rlm_integrations.errors import (
    InputError,
    MissingExtraError,
    ModelError,
    RLMError,
    SandboxError,
)

if TYPE_CHECKING:
    from rlm_integrations.events import Event
    from rlm_integrations.result import RLMResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    try:
        options = parse_arguments(argv)
        if options.command == "resume":
            return resume_run(options)
        return list_runs(options) if options.command == "runs" else _ask(options)
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


def _fail(message: str, code: int) -> int:
    say(message)
    return code


def _ask(options: argparse.Namespace) -> int:
    if options.save is not None:
        check_writable(options.save)
    name, notice = choose_model(options)
    last = _LastResult()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rlm = build_rlm(name, options, last)
    with open_corpus(options) as corpus, ExitStack() as storages:
        if options.storage is not None:
            storage = storages.enter_context(open_storage(options.storage))
            rlm = rlm.replace(storage=storage)
        for each in [notice, *(str(warning.message) for warning in caught)]:
            say(each)
        try:
            result = rlm.completion(options.question, corpus)
        except BaseException as error:
            if last.result is not None:
                deliver(last.result, options)
                if isinstance(error, KeyboardInterrupt) and not options.quiet:
                    say_summary(last.result)
            raise
    deliver(result, options)
    say_end(result, options)
    return exit_codes.exit_code_of(result.stop_reason)


class _LastResult:
    """Keeps the result of a run from its events, also if the run is interrupted or fails."""

    def __init__(self) -> None:
        self.result: RLMResult | None = None

    def __call__(self, event: "Event") -> None:
        """Keep the result of an event that has one."""
        self.result = getattr(event, "result", None) or self.result
