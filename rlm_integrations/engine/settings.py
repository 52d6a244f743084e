"""The options of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from rlm_integrations.engine.catalog import RESERVED
from rlm_integrations.engine.prompts import Prompt
from rlm_integrations.engine.reply_form import STRUCTURED, ReplyForm, form_of
from rlm_integrations.engine.run_storage import RunStorage, RunStore
from rlm_integrations.engine.tools import Tool, tools_of
from rlm_integrations.errors import InputError, check_count, check_text
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.base import LM, check_structured
from rlm_integrations.lm.reply_cache import ReplyCache, check_cacheable
from rlm_integrations.records import Budget, Limits
from rlm_integrations.sandbox import sandbox_named
from rlm_integrations.sandbox.base import Sandbox

_RECORDS: Final = MappingProxyType(
    {"budget": Budget, "limits": Limits, "retry": Retry, "prompt": Prompt}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a run with their defaults filled in; see `RLM`."""

    root: LM
    subs: Mapping[str, LM]
    max_iterations: int
    max_depth: int
    max_parallel_calls: int
    store_mode: str
    instructions: str | None
    prompt: Prompt
    form: ReplyForm
    budget: Budget
    limits: Limits
    retry: Retry
    output_type: Any
    sandbox: Sandbox
    tools: Sequence[Tool]
    storage: RunStorage | None
    store: RunStore | None
    require_coverage: float | None
    cache: ReplyCache | None

    @property
    def reads_on_demand(self) -> bool:
        """Whether large folders are read when code asks for their texts. A storage keeps the whole
        document, and all of it must be read to know how much was.
        """
        return (
            self.storage is None
            and self.store is None
            and self.require_coverage is None
            and self.sandbox.capabilities.reads_on_demand
        )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The settings for the options of an `RLM`, whose models are resolved.

        Raises:
            InputError: An option is invalid.
        """
        _check(options)
        return cls(
            root=options["root_llm"],
            subs=options["sub_llm"],
            max_iterations=options["max_iterations"],
            max_depth=options["max_depth"],
            max_parallel_calls=options["max_parallel_calls"],
            store_mode=options["store_mode"],
            instructions=options["instructions"],
            prompt=options["prompt"] or Prompt(),
            form=form_of(structured=options["structured"]),
            budget=options["budget"] or Budget(),
            limits=options["limits"] or Limits(),
            retry=options["retry"] or Retry(),
            output_type=options["output_type"],
            sandbox=sandbox_named(options["sandbox"]),
            tools=tools_of(options["tools"], RESERVED),
            storage=options["storage"],
            store=options["store"],
            require_coverage=options["require_coverage"],
            cache=_reply_cache(options) if options["cache"] else None,
        )

    @property
    def sub(self) -> LM:
        """The default model of code."""
        return next(iter(self.subs.values()))

    @property
    def offers_store(self) -> bool:
        """Whether a store can help, so that models are told of it."""
        if self.store_mode == "auto":
            return self.max_depth > 1 or self.store is not None
        return self.store_mode == "shared"


def _check(options: Mapping[str, Any]) -> None:
    """Check the options whose types do not check themselves."""
    for name in ("max_iterations", "max_depth", "max_parallel_calls"):
        check_count(name, options[name])
    for name, *choices in (
        ("store_mode", "auto", "shared", "none"),
        ("on_incomplete", "partial", "raise"),
    ):
        if options[name] not in choices:
            listed = " or ".join([", ".join(map(repr, choices[:-1])), repr(choices[-1])])
            raise InputError(f"{name}={options[name]!r}: choose {listed}")
    for name in ("cache", "show_progress", "structured", "verbose"):
        if not isinstance(options[name], bool):
            raise InputError(f"{name}={options[name]!r}: choose True or False")
    share = options["require_coverage"]
    if share is not None and (
        isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1
    ):
        raise InputError(
            f"require_coverage={share!r}: choose a share of the document from 0 to 1, or None"
        )
    storage, on_event = options["storage"], options["on_event"]
    if storage is not None and not isinstance(storage, RunStorage):
        raise InputError(
            f"storage must be a Storage, as in Storage('runs/'), not {type(storage).__name__}"
        )
    _check_store(options["store"], options["store_mode"], storage)
    _check_prompt(options)
    if on_event is not None and not callable(on_event):
        raise InputError(f"on_event must be a function that takes an event, not {on_event!r}")
    for name, kind in _RECORDS.items():
        if options[name] is not None and not isinstance(options[name], kind):
            given = type(options[name]).__name__
            raise InputError(f"{name} must be a {kind.__name__}, not {given}")


def _check_prompt(options: Mapping[str, Any]) -> None:
    """Check the user's words, and that a prompt of the user's has what the options need."""
    instructions = options["instructions"]
    if instructions is not None:
        check_text("instructions", instructions)
    needed = {"tools": "tools", "output_type": "schema", "instructions": "instructions"}
    needed["structured"] = "form"
    if options["structured"]:
        check_structured(options["root_llm"], STRUCTURED.schema or {})
    if isinstance(options["prompt"], Prompt):
        options["prompt"].check_options(
            {field: f"{name}=" for name, field in needed.items() if options[name]}
        )


def _check_store(store: object, store_mode: str, storage: object) -> None:
    if store is None:
        return
    if not isinstance(store, RunStore):
        raise InputError(
            "store must be a store of a Storage, as in storage.store('findings'), not "
            f"{type(store).__name__}"
        )
    if store_mode == "none":
        raise InputError("store_mode='none' removes the store: leave out store= or store_mode=")
    if storage is not None and not store.belongs_to(storage):
        raise InputError(
            "store= must be in the storage of the run, so that both are written as one: "
            "pass storage.store(name) of the storage that storage= names"
        )


def _reply_cache(options: Mapping[str, Any]) -> ReplyCache:
    """The storage as a cache for the models."""
    storage: object = options["storage"]
    if not isinstance(storage, ReplyCache):
        raise InputError("cache=True needs a storage: RLM(…, cache=True, storage=Storage('runs/'))")
    for lm in (options["root_llm"], *options["sub_llm"].values()):
        check_cacheable(lm)
    return storage
