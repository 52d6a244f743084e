"""LangChain's chat models as `LM`s.

Imported when one is passed in, so LangChain is installed.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from langchain_core.language_models import (
    BaseChatModel,
    BaseLLM,
    LanguageModelInput,
    SimpleChatModel,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.tools import BaseTool

from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.frameworks.base import (
    ForeignLM,
    completed,
    name_from,
    params_of,
    usage_from,
)
from rlm_integrations.lm.frameworks.home_loop import per_object
from rlm_integrations.lm.frameworks.langchain_bounds import bound_of, own_bound_of, takes_arguments
from rlm_integrations.lm.frameworks.langchain_caching import takes_cache_points, with_cache_points
from rlm_integrations.lm.frameworks.langchain_callbacks import (
    inherited,
    surrounding,
    wants_stream,
    whole,
)
from rlm_integrations.lm.frameworks.langchain_stream_usage import StreamUsage
from rlm_integrations.lm.frameworks.langchain_structured import in_schema
from rlm_integrations.records import Completion, Request, Usage

KINDS: dict[str, type[BaseMessage]] = {
    "assistant": AIMessage,
    "system": SystemMessage,
    "user": HumanMessage,
}
# Asynchronous methods that run the synchronous one in the loop's default executor.
# They are what subclasses replace
DETOURS = {BaseChatModel._agenerate, SimpleChatModel._agenerate}  # noqa: SLF001
# Runnables that never return a model's message.
NO_MODELS = (BaseLLM, BaseOutputParser, BasePromptTemplate, BaseRetriever, BaseTool)
# Input tokens written to the provider's cache: Anthropic's integration counts each in one of them
_CACHE_WRITES: Final = (
    "cache_creation",
    "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens",
)
MAX_CONFIGURED: Final = 32  # models of different configurations kept, with their connections

# Adds to the configuration of a call, mainly the callbacks of the outer run. Without it,
# LangChain's own context variable is used, which is valid if the calling context was copied from
# the outer run.
outer_config: ContextVar[Callable[[Request], Awaitable[RunnableConfig]] | None] = ContextVar(
    "outer_config", default=None
)


class LangChainLM(ForeignLM[AIMessage]):
    """A Runnable that returns an `AIMessage`: a `BaseChatModel`, bound (`bind`, `with_config`),
    with fallbacks, or any other.

    Args:
        asked: The user's object.
        name: The model's name.

    Attributes:
        models: The chat models in it, as far as they are known.
    """

    def __init__(self, asked: Runnable[LanguageModelInput, AIMessage], name: str) -> None:
        self.models = list(models_in(asked))
        model = self.models[0] if len(self.models) == 1 else asked
        windows = [(each.profile or {}).get("max_input_tokens") for each in self.models]
        super().__init__(
            model,
            ask=asked.invoke,
            ask_async=None if _is_detour(asked, self.models) else asked.ainvoke,
            name=name,
            context_window=min((each for each in windows if each), default=None)
            if all(windows)
            else None,
            clients=self.models,
        )
        self._identified = asked
        self.is_several = len(self.models) > 1
        self._bound = bound_of(self.models) if takes_arguments(asked) else None
        self.reply_tokens = own_bound_of(asked, self.models)
        self._stream_usage = StreamUsage(asked, self.models)
        self._is_cached = takes_cache_points(asked, self.models)
        self._in_schema: LangChainLM | None = None

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        """Check that the models have structured output; see `StructuredLM`.

        Raises:
            InputError: One has none.
        """
        if self._in_schema is None:
            self._in_schema = _StructuredLM(in_schema(self._identified, schema), self.name)

    async def complete(self, request: Request) -> Completion:
        """The model's answer; see `ForeignLM.complete`."""
        if request.schema is None:
            return await super().complete(request)
        self.check_structured(request.schema)
        model: ForeignLM[AIMessage] = self._in_schema or self
        return await model.complete(replace(request, schema=None))

    async def _ask(self, arguments: Mapping[str, Any]) -> AIMessage:
        with surrounding(arguments["config"]["callbacks"]):
            return await super()._ask(arguments)

    async def arguments(self, request: Request) -> dict[str, Any]:
        """Messages, parameters, and the call's trace configuration."""
        config = trace_config(request)
        if (config_of := outer_config.get()) is not None:
            config.update(await config_of(request))
        callbacks = config["callbacks"] if "callbacks" in config else inherited()
        if "nostream" in config["tags"]:
            callbacks = whole(callbacks)
        config["callbacks"] = callbacks
        params = params_of(request, self._bound)
        if self._stream_usage.is_missing(params, streamed=wants_stream(callbacks)):
            params["stream_usage"] = True
        messages = [KINDS[message.role](message.content) for message in request.messages]
        # Of sub-models each prompt is another one: to cache it would only cost
        if self._is_cached and request.role == "root":
            messages = with_cache_points(messages)
        return {**params, "input": messages, "config": config}

    def completion(self, reply: AIMessage) -> Completion:
        """The completion in the message; of content in blocks, the text."""
        if not isinstance(reply, BaseMessage):
            raise ModelError(
                f"a model must return an AIMessage, not a {type(reply).__name__}", type="input"
            )
        about = reply.response_metadata
        reason = next(
            (
                about[key]
                for key in ("finish_reason", "stop_reason", "done_reason", "stopReason")
                if about.get(key)
            ),
            None,
        )
        model = next(
            (about[key] for key in ("model_name", "model") if isinstance(about.get(key), str)),
            self.name,
        )
        # Google's reason for refusing the prompt
        blocked = (about.get("prompt_feedback") or {}).get("block_reason")
        refusal = (
            reply.additional_kwargs.get("refusal")
            or _blocks(reply, "refusal")
            or getattr(blocked, "value", blocked)
        )
        calls = getattr(reply, "tool_calls", None) or getattr(reply, "invalid_tool_calls", None)
        return completed(_blocks(reply, "text"), reason, refusal, calls, _usage(reply), model)


class _StructuredLM(LangChainLM):
    """A model that answers in a JSON schema, as text or as arguments of a tool."""

    def completion(self, reply: AIMessage) -> Completion:
        """The completion whose text is the object."""
        calls = getattr(reply, "tool_calls", None)
        if calls:
            text = json.dumps(calls[0]["args"], ensure_ascii=False)
            reply = reply.model_copy(update={"content": text, "tool_calls": []})
        return super().completion(reply)


class ConfigurableLM:
    """A model that the configuration of the outer run selects, for each call.

    Args:
        asked: What `configurable_fields`, `configurable_alternatives` or
            `init_chat_model(configurable_fields=…)` made.
    """

    is_several = True

    def __init__(self, asked: Runnable[LanguageModelInput, AIMessage]) -> None:
        self._asked = asked
        self._known: dict[str, LangChainLM] = {}
        self.limit_key = per_object("limits", asked, object)
        try:
            default = self._lm()
        except Exception:  # noqa: BLE001
            # A provider's class may raise anything where a configuration is needed
            default = None
        self.name = type(asked).__name__.lstrip("_") if default is None else default.name
        self.context_window = None if default is None else default.context_window

    @property
    def models(self) -> list[BaseChatModel]:
        """The chat models called so far."""
        return [model for lm in self._known.values() for model in lm.models]

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        """Check the default model, if there is one; see `StructuredLM`.

        Raises:
            InputError: It has no structured output.
        """
        for lm in self._known.values():
            lm.check_structured(schema)

    async def complete(self, request: Request) -> Completion:
        """The answer of the model that the configuration selects.

        Raises:
            ModelError: The call failed, or the configuration selects no model.
        """
        try:
            lm = self._lm()
        except Exception as error:
            raise ModelError(
                f"the configuration selects no model: {error}", type="input"
            ) from error
        return await lm.complete(request)

    def _lm(self) -> LangChainLM:
        config = ensure_config()
        key = self._key(config)
        if key not in self._known:
            if len(self._known) == MAX_CONFIGURED:
                del self._known[next(iter(self._known))]
            model = (
                self._asked.prepare(config)[0]
                if isinstance(self._asked, DynamicRunnable)
                else self._asked._model(config)  # type: ignore[attr-defined] # noqa: SLF001 - LangChain's own way to it
            )
            self._known[key] = LangChainLM(model, name_of(model))
        return self._known[key]

    def _key(self, config: RunnableConfig) -> str:
        """The part of the configuration that selects the model."""
        if not isinstance(self._asked, DynamicRunnable):
            return repr(sorted(self._asked._model_params(config).items()))  # type: ignore[attr-defined] # noqa: SLF001 - as above
        given = config.get("configurable", {})
        return repr(
            sorted(
                (spec.id, given[spec.id]) for spec in self._asked.config_specs if spec.id in given
            )
        )

    def __repr__(self) -> str:
        return f"ConfigurableLM({self.name!r})"


def trace_config(request: Request) -> RunnableConfig:
    """The trace configuration of a call: its name, depth and path in the run.

    `nostream` keeps its tokens out of a user's messages.
    """
    config = RunnableConfig(
        run_name=f"rlm.{request.role}", tags=[f"rlm:depth={request.depth}", "nostream"]
    )
    if request.path:
        config["metadata"] = {"rlm_path": request.path}
    return config


def adapt(given: Any) -> LangChainLM | ConfigurableLM:
    """The model in an object of LangChain.

    Raises:
        InputError: It has none.
    """
    if not isinstance(given, Runnable) or isinstance(_last_step(given), NO_MODELS):
        what = (
            "of LangChain's objects, a model is a BaseChatModel or any Runnable that returns "
            "an AIMessage"
        )
        raise InputError(f"{what}, not a {type(given).__name__}")
    if isinstance(given, DynamicRunnable) or {"_model", "_model_params"} <= set(dir(type(given))):
        return ConfigurableLM(given)
    return LangChainLM(given, name_of(given))


def models_in(asked: object) -> Iterator[BaseChatModel]:
    """The chat models in a Runnable, as far as they can be found."""
    if isinstance(asked, BaseChatModel):
        yield asked
    elif isinstance(asked, RunnableBindingBase):
        yield from models_in(asked.bound)
    elif isinstance(asked, RunnableWithFallbacks):
        yield from (model for each in asked.runnables for model in models_in(each))
    elif isinstance(asked, RunnableSequence):
        yield from (model for each in asked.steps for model in models_in(each))


def name_of(asked: Any) -> str:
    """The name of the (first) model in an object, or else of the object itself."""
    outer = asked
    while isinstance(asked, RunnableBindingBase):
        if name := asked.kwargs.get("model"):
            return str(name)
        asked = asked.bound
    if isinstance(asked, RunnableWithFallbacks):
        return name_of(asked.runnable)
    model = next(models_in(asked), None)
    if model is not None:
        return name_from(model, "model_name", "model", "model_id", "deployment_name")
    return str(outer.get_name())


def _last_step(asked: object) -> object:
    """The step that returns the reply."""
    if isinstance(asked, RunnableBindingBase):
        return _last_step(asked.bound)
    return _last_step(asked.last) if isinstance(asked, RunnableSequence) else asked


def _is_detour(asked: object, models: Sequence[BaseChatModel]) -> bool:
    """Whether its asynchronous method would only run the synchronous one in the loop's default
    executor.
    """
    if isinstance(asked, RunnableLambda):
        return not hasattr(asked, "afunc")
    if type(asked).ainvoke is Runnable.ainvoke:  # type: ignore[attr-defined]
        return True
    # Only this method shows whether a class implements async calls.
    return any(type(each)._agenerate in DETOURS for each in models)  # noqa: SLF001


def _blocks(message: BaseMessage, kind: str) -> str | None:
    """The text of the message's blocks of a kind, which is their type and key; None if there are
    none.
    """
    if isinstance(message.content, str):
        return message.content if kind == "text" else None
    parts = [
        {"type": "text", "text": each} if isinstance(each, str) else each
        for each in message.content
    ]
    texts = [part.get(kind) for part in parts if part.get("type") == kind]
    return "".join(each for each in texts if isinstance(each, str)) if texts else None


def _usage(message: BaseMessage) -> Usage | None:
    counts = getattr(message, "usage_metadata", None)
    if counts is None:
        return None
    cached: Mapping[str, Any] = counts.get("input_token_details") or {}
    reasoning: Mapping[str, Any] = counts.get("output_token_details") or {}
    return usage_from(
        counts["input_tokens"],
        counts["output_tokens"],
        cached.get("cache_read"),
        reasoning.get("reasoning"),
        sum(cached.get(key) or 0 for key in _CACHE_WRITES),
    )
