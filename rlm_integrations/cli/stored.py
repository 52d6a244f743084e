"""The commands about stored runs: `resume` and `runs`."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.models import named_model
from rlm_integrations.cli.output import check_writable, deliver, print_text, say_end
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.run_setup import RunSetup
    from rlm_integrations.storage import Storage

_QUESTION_CHARS = 60  # of a question in the list


def open_storage(place: str) -> "Storage":
    """The storage of a folder or a URL.

    Raises:
        InputError: The place cannot be a storage.
        StorageError: It cannot be opened.
        MissingExtraError: The packages of the storage are not installed.
    """
    from rlm_integrations.storage import Storage

    return Storage(place)


def resume_run(options: argparse.Namespace) -> int:
    """Go on with a run, and print its result; the exit code."""
    if options.save is not None:
        check_writable(options.save)
    with open_storage(options.storage) as storage:
        setup = storage.setup(options.run_id)
        result = _rlm(setup, options, storage).resume(options.run_id)
    deliver(result, options)
    say_end(result, options)
    return exit_codes.exit_code_of(result.stop_reason)


def _rlm(setup: "RunSetup", options: argparse.Namespace, storage: "Storage") -> "RLM":
    """An RLM with the models and the options that the run began with."""
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.records import Budget

    stored = setup.options
    models = setup.models
    try:
        return RLM(
            named_model(models.root, options.base_url),
            {name: named_model(model, options.base_url) for name, model in models.subs.items()},
            max_iterations=stored["max_iterations"],
            max_depth=stored["max_depth"],
            max_parallel_calls=stored["max_parallel_calls"],
            store_mode=stored["store_mode"],
            budget=Budget(**stored["budget"]),
            sandbox=stored["sandbox"],
            storage=storage,
            verbose=options.verbose,
            show_progress=not (options.quiet or options.verbose) and sys.stderr.isatty(),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"run {options.run_id!r} was stored by version {setup.version} with options that this "
            f"version does not have ({error}): resume it with that version"
        ) from error


def list_runs(options: argparse.Namespace) -> int:
    """Print the runs of a storage; the exit code."""
    from rlm_integrations.engine.show import printable

    with open_storage(options.storage) as storage:
        runs = storage.runs(options.query, limit=options.limit)
    if options.json:
        print_text(json.dumps([asdict(run) for run in runs], default=str))
        return exit_codes.ANSWERED
    for run in runs:
        status = "interrupted" if run.status == "running" and not run.is_owned else run.status
        question = " ".join(printable(run.question).split())[:_QUESTION_CHARS]
        print_text(f"{run.run_id}  {run.created:%Y-%m-%d %H:%M}  {status:<15} {question}")
    return exit_codes.ANSWERED
