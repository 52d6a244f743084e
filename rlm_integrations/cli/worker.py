"""The command `rlm-integrations worker`."""

import argparse
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import (
    DEFAULT_STORAGE,
    add_json,
    add_sandbox,
    add_storage,
    amount,
    count,
)
from rlm_integrations.cli.output import print_json, say
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.progress import run_lines
from rlm_integrations.cli.stored import open_storage

if TYPE_CHECKING:
    from rlm_integrations.jobs import JobEvent, Worker

_NOTES = """\
The first Ctrl-C or SIGTERM lets running jobs finish for --grace seconds, and hands back the others; the
second one hands back all at once. Another worker goes on with them, and pays for no call twice.
"""
_STDERR = 2
_CLEAR = b"\r\x1b[J"  # progress lines; they are drawn again below
_STOPPING = b"rlm-integrations: stopping; the next signal hands running jobs back at once\n"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def add_worker(commands: Any) -> None:
    """Add the command."""
    worker: Parser = commands.add_parser(
        "worker",
        help="answer the questions that were submitted",
        description=(
            "Answer submitted questions, several at once, until it is stopped. Any number of"
            " workers, on any machines, share one storage."
        ),
    )
    worker.add_argument(
        "-n",
        "--parallel",
        type=count,
        default=4,
        metavar="N",
        help="how many jobs at once (%(default)s)",
    )
    worker.add_argument(
        "--until-empty",
        action="store_true",
        help="end when no job is waiting or running, with 1 if one has failed here",
    )
    worker.add_argument(
        "--grace",
        type=amount,
        default=20.0,
        metavar="S",
        help="seconds that running jobs have left after a signal (%(default)g)",
    )
    worker.add_argument(
        "--base-url", metavar="URL", help="API of the jobs' models, if it is not the default one"
    )
    add_sandbox(worker, "where the code runs (%(default)s)")
    add_storage(worker, DEFAULT_STORAGE)
    worker.add_argument("--quiet", action="store_true", help="show errors only")
    add_json(worker, "print how many jobs ended how as JSON, at the end")
    worker.examples = ("worker -n 8 --until-empty --storage runs/",)
    worker.notes = _NOTES
    worker.set_defaults(run=run_worker)


def run_worker(options: argparse.Namespace) -> int:
    """Work until a signal; the exit code."""
    from rlm_integrations.jobs import Worker
    from rlm_integrations.jobs.models import ModelsByName, models_of

    models = ModelsByName(options.base_url, options.sandbox)
    progress = run_lines(options)  # of all jobs
    with open_storage(options.storage) as storage:
        worker = Worker(
            storage,
            lambda manifest: models.rlm(models_of(manifest), manifest.options).replace(
                on_event=progress
            ),
            parallel=options.parallel,
            grace_seconds=options.grace,
            on_event=lambda event: _say_event(event, worker, is_quiet=options.quiet),
        )
        if not options.quiet:
            say(f"{_shown(storage.queue.counts())}; Ctrl-C ends the worker")
        with _stopped_by_signals(worker, is_quiet=options.quiet, has_lines=progress is not None):
            ended = worker.run(until_empty=options.until_empty)
    if not options.quiet:
        say(f"ended: {_shown(ended) or 'no job'}")
    if options.json:
        print_json(ended)
    has_failed = options.until_empty and ended.get("failed", 0)
    return exit_codes.FAILED if has_failed else exit_codes.ANSWERED


@contextmanager
def _stopped_by_signals(worker: "Worker", *, is_quiet: bool, has_lines: bool) -> Iterator[None]:
    def stop(*_: object) -> None:
        worker.stop()
        if not is_quiet:
            # Not `say`, whose lock a handler that this one interrupts may have
            with suppress(OSError):
                os.write(_STDERR, (_CLEAR if has_lines else b"") + _STOPPING)

    before = {each: signal.signal(each, stop) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _say_event(event: "JobEvent", worker: "Worker", *, is_quiet: bool) -> None:
    """Say what happened to a job."""
    if is_quiet and event.kind != "failed":
        return
    took = "" if event.kind == "started" else f" after {event.seconds:.1f} s"
    error = f": {event.error}" if event.error else ""
    counts = f" ({_shown(worker.counts)})" if worker.counts else ""
    say(f"job {event.job.job_id} {event.kind}{took}{error}{counts}")


def _shown(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)
