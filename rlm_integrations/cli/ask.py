"""The command `rlm-integrations ask FILE… "question"`.

The answer goes to stdout, everything else to stderr.
"""

import argparse
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import (
    add_budget,
    add_cache,
    add_files,
    add_models,
    add_output,
    add_run,
    add_sandbox,
    add_storage,
    add_words,
)
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.models import build_rlm, choose_model
from rlm_integrations.cli.output import check_writable, deliver, say, say_end, say_summary
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.serving import add_serve, served_run
from rlm_integrations.cli.stored import open_storage

if TYPE_CHECKING:
    from rlm_integrations.events import Event, Hook
    from rlm_integrations.result import RLMResult


def add_ask(commands: Any) -> None:
    """Add the command."""
    ask: Parser = commands.add_parser(
        "ask",
        help="answer a question about one or several files",
        description=(
            "Answer a question about files. The answer and its citations go to stdout,"
            " everything else to stderr."
        ),
        usage='%(prog)s FILE [FILE ...] "QUESTION" [options]',
    )
    ask.examples = (
        'ask archive.txt "Who approved the Ravenna dam?"',
        'ask archive.txt letters/*.txt "Who approved it?" --model gpt-5-mini --max-cost 0.50',
        'ask archive.txt "Who approved it?" --serve --open',
        'ask - "Who approved it?" --model offline --json < archive.txt',
    )
    ask.notes = exit_codes.HELP
    add_words(ask)
    add_models(ask).add_argument(
        "--base-url",
        metavar="URL",
        help="API of both models, such as http://localhost:11434/v1",
    )
    add_budget(ask)
    run = add_run(ask)
    add_sandbox(run, "where the code runs (%(default)s)")
    add_storage(run, None)
    add_cache(run)
    add_files(ask)
    add_output(ask)
    add_serve(ask)
    ask.set_defaults(run=ask_files)


def ask_files(options: argparse.Namespace) -> int:
    """Answer the question, and print the result; the exit code."""
    if options.save is not None:
        check_writable(options.save)
    name, notice = choose_model(options)
    last = _LastResult()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rlm = build_rlm(name, options, last)
    with ExitStack() as stack:
        texts = None
        if options.storage is not None:
            storage = stack.enter_context(open_storage(options.storage))
            rlm, texts = rlm.replace(storage=storage, cache=options.cache), storage.texts
        corpus = stack.enter_context(open_corpus(options, texts, on_demand=texts is None))
        for each in [notice, *(str(warning.message) for warning in caught)]:
            say(each)
        last.follower = stack.enter_context(served_run(options, corpus))
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
    """Keeps the result of a run from its events, also if the run is interrupted or fails.

    Attributes:
        result: The result; None until the run has ended.
        follower: Gets all events, too.
    """

    def __init__(self) -> None:
        self.result: RLMResult | None = None
        self.follower: Hook | None = None

    def __call__(self, event: "Event") -> None:
        """Keep the result of an event that ends the run."""
        from rlm_integrations.events import RunFailed, RunFinished

        if isinstance(event, RunFinished | RunFailed):
            self.result = event.result
        if self.follower is not None:
            self.follower(event)
