"""The command `rlm-integrations resume RUN_ID`."""

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_output, add_sandbox, add_storage
from rlm_integrations.cli.models import named_model
from rlm_integrations.cli.output import check_writable, deliver, say_end
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.progress import run_lines
from rlm_integrations.cli.serving import add_serve, served_run
from rlm_integrations.cli.stored import existing_storage
from rlm_integrations.errors import InputError, quote_value

if TYPE_CHECKING:
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.events import Hook
    from rlm_integrations.run_setup import RunSetup
    from rlm_integrations.storage import Storage


def add_resume(commands: Any) -> None:
    """Add the command."""
    resume: Parser = commands.add_parser(
        "resume",
        help="go on with a run that did not end",
        description=(
            "Go on with a stored run; no call whose answer is stored is made again. The result of"
            " a run that has ended is printed again."
        ),
    )
    resume.add_argument("run_id", metavar="RUN_ID", help="the run, as `runs` lists it")
    add_storage(resume, DEFAULT_STORAGE)
    models = resume.add_argument_group("models")
    models.add_argument(
        "--model",
        metavar="NAME",
        help="the run's root model, if its name needs a provider: anthropic:claude-sonnet-5",
    )
    models.add_argument("--sub-model", metavar="NAME", help="the same for the model of its code")
    models.add_argument(
        "--base-url", metavar="URL", help="API of the run's models, if it is not the default one"
    )
    add_sandbox(resume, "must be named again if the run began in another one than %(default)s")
    add_output(resume)
    add_serve(resume)
    resume.examples = ("resume 1f0c9a3e57d24b1c", "resume 1f0c9a3e57d24b1c --json --storage runs/")
    resume.notes = exit_codes.HELP
    resume.set_defaults(run=resume_run)


def resume_run(options: argparse.Namespace) -> int:
    """Go on with a run, and print its result; the exit code."""
    if options.save is not None:
        check_writable(options.save)
    with existing_storage(options.storage) as storage:
        setup = storage.setup(options.run_id)
        document = storage.document(options.run_id) if options.serve else None
        with document or nullcontext(), served_run(options, document) as follower:
            result = _rlm(setup, options, storage, follower).resume(options.run_id)
            deliver(result, options)
            say_end(result, options)
    return exit_codes.exit_code_of(result.stop_reason)


def _rlm(
    setup: "RunSetup", options: argparse.Namespace, storage: "Storage", follower: "Hook | None"
) -> "RLM":
    """An RLM with the models and the options that the run began with."""
    from rlm_integrations._json import read_record
    from rlm_integrations.engine.prompts import Prompt
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.events import Emitter
    from rlm_integrations.lm.providers import is_foreign
    from rlm_integrations.records import Budget

    stored = setup.options
    models = setup.models
    # A run may come from others, with `import`: it may choose neither a weaker sandbox nor whom
    # this user's key is sent to
    if stored.get("sandbox") == "inprocess" != options.sandbox:
        raise InputError(
            f"run {options.run_id!r} began with --sandbox inprocess, which does not restrict its "
            "code: name it again to go on"
        )
    names = (models.root, *models.subs.values())
    if chosen := [name for name in names if "@" in name or is_foreign(name)]:
        raise InputError(
            f"run {options.run_id!r} names the model {quote_value(chosen[0])} with an address or a "
            "provider: resume it with RLM(…).resume and a model of your own"
        )
    given: dict[str, str] = {}
    if options.sub_model is not None:
        given[models.subs[models.default]] = options.sub_model
    if options.model is not None:
        given[models.root] = options.model
    try:
        return RLM(
            named_model(given.get(models.root, models.root), options.base_url),
            {
                name: named_model(given.get(model, model), options.base_url)
                for name, model in models.subs.items()
            },
            max_iterations=stored["max_iterations"],
            max_depth=stored["max_depth"],
            max_parallel_calls=stored["max_parallel_calls"],
            store_mode=stored["store_mode"],
            instructions=stored.get("instructions"),
            structured=stored.get("structured") is True,
            prompt=read_record(Prompt | None, stored.get("prompt"), "prompt"),
            budget=Budget(**stored["budget"]),
            sandbox=options.sandbox,
            storage=storage,
            store=storage.store(stored["store"]) if stored.get("store") else None,
            cache=stored.get("cache") is True,
            require_coverage=stored.get("require_coverage"),
            verbose=options.verbose,
            on_event=Emitter(run_lines(options), follower),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"run {options.run_id!r} was stored by version {setup.version} with options that this "
            f"version does not have ({error}): resume it with that version"
        ) from error
