"""The models of a command, and the engine that asks them."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli.arguments import DEFAULT_MODEL
from rlm_integrations.cli.progress import run_lines
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.events import Event
    from rlm_integrations.lm.openai import OpenAILM


def choose_model(options: argparse.Namespace) -> tuple[str, str]:
    """The name of the root model, and the notice about that choice, which may be empty.

    Raises:
        InputError: There is an address, but no name.
    """
    from rlm_integrations.lm.offline import NOTICE

    if options.model is not None:
        return options.model, NOTICE if options.model == "offline" and not options.quiet else ""
    if options.base_url is not None:
        raise InputError("--base-url needs --model: the name of a model that is served there")
    if os.environ.get("OPENAI_API_KEY", "").strip():
        notice = f"no --model: asking {DEFAULT_MODEL}, because OPENAI_API_KEY is set"
        return DEFAULT_MODEL, "" if options.quiet else notice
    # With --quiet too: the answer must not be taken for that of a language model.
    return "offline", f"no --model and no OPENAI_API_KEY: using offline. {NOTICE}"


def build_rlm(
    name: str, options: argparse.Namespace, on_event: "Callable[[Event], None] | None" = None
) -> "RLM":
    """The engine with the options of the command.

    Args:
        name: The root model.
        options: The options of the command.
        on_event: Receives every event; None for a job, whose models are only named.
    """
    if options.sandbox == "process" and on_event is not None:
        from rlm_integrations.sandbox.process import ProcessSandbox

        ProcessSandbox().prepare()  # while the engine is imported
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.events import Emitter
    from rlm_integrations.records import Budget

    def model(name: str) -> Any:
        if on_event is not None:
            return named_model(name, options.base_url)
        from rlm_integrations.jobs.models import JobModel

        return JobModel(name)

    return RLM(
        model(name),
        None if options.sub_model is None else model(options.sub_model),
        max_iterations=options.max_iterations,
        max_depth=options.max_depth,
        max_parallel_calls=options.max_parallel,
        store_mode=options.store_mode,
        instructions=options.instructions,
        structured=options.structured,
        require_coverage=options.require_coverage,
        budget=Budget(
            max_calls=options.max_calls,
            max_tokens=options.max_tokens,
            max_cost=options.max_cost,
            max_seconds=options.max_seconds,
        ),
        sandbox=options.sandbox,
        verbose=options.verbose,
        on_event=None if on_event is None else Emitter(on_event, run_lines(options)),
    )


def named_model(name: str, base_url: str | None) -> "str | OpenAILM":
    """The model of this name, at the address if one is given.

    Raises:
        InputError: The offline model has no address.
    """
    if base_url is None:
        return name
    if name == "offline":
        raise InputError(
            "--base-url cannot be used with the model 'offline', which sends no requests"
        )
    from rlm_integrations.lm.openai import OpenAILM

    return OpenAILM(name, base_url=base_url)
