"""The command `rlm-integrations ask FILE… "question"`.

The answer goes to stdout, everything else to stderr.
"""

import argparse
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import (
    DEFAULT_MODEL,
    add_files,
    add_output,
    add_storage,
    amount,
    count,
)
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.models import build_rlm, choose_model
from rlm_integrations.cli.output import check_writable, deliver, say, say_end, say_summary
from rlm_integrations.cli.stored import open_storage

if TYPE_CHECKING:
    from rlm_integrations.events import Event
    from rlm_integrations.result import RLMResult


def add_ask(commands: Any) -> None:
    """Add the command."""
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
    add_storage(run, None)
    run.add_argument(
        "--cache",
        action="store_true",
        help="answer calls that an earlier run in the storage made from its record",
    )
    add_files(ask)
    add_output(ask)
    ask.set_defaults(run=ask_files)


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
    budget.add_argument("--max-calls", type=count, metavar="N", help="calls of models")
    budget.add_argument("--max-tokens", type=count, metavar="N", help="input and output tokens")
    budget.add_argument("--max-cost", type=amount, metavar="USD", help="US dollars")
    budget.add_argument("--max-seconds", type=amount, metavar="S", help="wall time")


def _add_run(ask: argparse.ArgumentParser) -> Any:
    run = ask.add_argument_group("run")
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


def ask_files(options: argparse.Namespace) -> int:
    """Answer the question, and print the result; the exit code."""
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
            rlm = rlm.replace(storage=storage, cache=options.cache)
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
