"""The command `rlm-integrations submit FILE… "question"`."""

import argparse
from typing import Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import (
    DEFAULT_STORAGE,
    add_budget,
    add_cache,
    add_files,
    add_json,
    add_models,
    add_run,
    add_storage,
    add_words,
)
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.models import build_rlm, choose_model
from rlm_integrations.cli.output import print_json, print_text, say
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import open_storage


def add_submit(commands: Any) -> None:
    """Add the command."""
    submit: Parser = commands.add_parser(
        "submit",
        help="have workers answer a question about one or several files",
        description=(
            "Keep a question and its files as a job, which a worker on any machine answers. Prints"
            " the job's id; `rlm-integrations resume ID` prints its answer."
        ),
        usage='%(prog)s FILE [FILE ...] "QUESTION" [options]',
    )
    add_words(submit)
    add_models(submit)
    add_budget(submit)
    add_cache(add_run(submit))
    add_files(submit)
    job = submit.add_argument_group("job")
    job.add_argument("--each", action="store_true", help="a job for each file, not one for all")
    job.add_argument(
        "--priority",
        type=int,
        default=100,
        metavar="N",
        help="smaller numbers come first (%(default)s)",
    )
    add_storage(job, DEFAULT_STORAGE)
    add_json(submit, "print a JSON list of jobs")
    submit.add_argument("--quiet", action="store_true", help="show errors only")
    submit.examples = (
        'submit archive.txt "Who approved the Ravenna dam?" --model gpt-5-mini',
        'submit letters/*.txt "Who wrote it?" --each --priority 10 --storage runs/',
    )
    # What the worker has
    submit.set_defaults(run=submit_jobs, base_url=None, sandbox="process", verbose=False)


def submit_jobs(options: argparse.Namespace) -> int:
    """Add the jobs, and print their ids; the exit code."""
    from rlm_integrations.jobs import submit

    name, notice = choose_model(options)
    rlm = build_rlm(name, options)
    say(notice)
    jobs = []
    with open_storage(options.storage) as storage:
        rlm = rlm.replace(storage=storage, cache=options.cache)
        for files in [[file] for file in options.files] if options.each else [options.files]:
            with open_corpus(argparse.Namespace(**{**vars(options), "files": files})) as corpus:
                job_id = submit(rlm, options.question, corpus, priority=options.priority)
            jobs.append({"job_id": job_id, "files": files})
            if not options.json:
                print_text(job_id)
    if options.json:
        print_json(jobs)
    return exit_codes.ANSWERED
