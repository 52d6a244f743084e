"""The command `rlm-integrations jobs`."""

import argparse
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_json, add_storage, count
from rlm_integrations.cli.output import one_line, print_json, print_text, say
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import existing_storage

if TYPE_CHECKING:
    from rlm_integrations.storage import Job

_STATUSES = ("pending", "running", "completed", "failed", "cancelled")
_SHOWN_CHARS = 60  # of a question, and of an error, in the list


def add_jobs(commands: Any) -> None:
    """Add the command."""
    jobs: Parser = commands.add_parser(
        "jobs",
        help="list submitted questions, cancel or retry one",
        description="List jobs, the newest first, and count them; or change one.",
    )
    change = jobs.add_mutually_exclusive_group()
    change.add_argument("--cancel", metavar="ID", help="cancel this job, also if it is running")
    change.add_argument(
        "--retry", metavar="ID", help="have this failed or cancelled job wait again"
    )
    jobs.add_argument("--status", choices=_STATUSES, help="only jobs of this status")
    jobs.add_argument(
        "--limit", type=count, default=100, metavar="N", help="how many at most (%(default)s)"
    )
    add_storage(jobs, DEFAULT_STORAGE)
    add_json(jobs, "print a JSON list")
    jobs.examples = ("jobs --status failed", "jobs --retry 7b0f6a52-7d0c-4d5e-9d55-0f3a2f1f5b1e")
    jobs.set_defaults(run=list_jobs)


def list_jobs(options: argparse.Namespace) -> int:
    """Change a job, or print the list; the exit code."""
    from rlm_integrations.storage import DeriveJobStatus

    with existing_storage(options.storage) as storage:
        queue = storage.queue
        changed = options.retry or options.cancel
        if options.retry is not None:
            queue.retry(options.retry)
            say(f"job {options.retry} waits again")
        elif options.cancel is not None:
            was_open = queue.cancel(options.cancel)
            say(f"job {options.cancel} {'is cancelled' if was_open else 'was over already'}")
        if changed:
            if options.json:
                print_json([queue.get(changed)])
            return exit_codes.ANSWERED
        status = None if options.status is None else DeriveJobStatus(options.status)
        jobs = queue.list(status, limit=options.limit)
        counts = queue.counts()
    if options.json:
        print_json(jobs)
    else:
        for job in jobs:
            print_text(_line(job))
    say(", ".join(f"{number} {name}" for name, number in counts.items()))
    return exit_codes.ANSWERED


def _line(job: "Job") -> str:
    why = "its manifest is damaged" if job.damage else job.error
    error = f"  ({one_line(why, _SHOWN_CHARS)})" if why else ""
    question = one_line(job.manifest.question, _SHOWN_CHARS)
    return f"{job.job_id}  {job.created_at:%Y-%m-%d %H:%M}  {job.status:<9}  {question}{error}"
