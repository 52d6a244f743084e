"""LangChain's chat models as models of ours. Imported when one is given, which proves that LangChain is there."""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput, SimpleChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase

from rlm_integrations.errors import InputError
from rlm_integrations.lm.foreign import ForeignLM, completed, name_from, params_of, usage_from
from rlm_integrations.records import Completion, Request, Usage

KINDS: dict[str, type[BaseMessage]] = {"assistant": AIMessage, "system": SystemMessage, "user": HumanMessage}
# Asynchronous methods that run the synchronous one in the loop's default executor.
DETOURS = {BaseChatModel._agenerate, SimpleChatModel._agenerate}  # noqa: SLF001 - they are what subclasses replace

# What a face adds to the configuration of a call, above all whose callbacks it belongs to. Without, LangChain's own context variable tells,
# which holds as long as the context that asks was copied from that of the outer run.
outer_config: ContextVar[Callable[[Request], Awaitable[RunnableConfig]] | None] = ContextVar("outer_config", default=None)


class LangChainLM(ForeignLM[AIMessage]):
    """A `BaseChatModel`, as it is or bound by `bind`, `with_config` and the like.

    Args:
        asked: What the user gave.
        model: The chat model in it.
        name: The model's name.
    """

    def __init__(self, asked: Runnable[LanguageModelInput, AIMessage], model: BaseChatModel, name: str) -> None:
        super().__init__(
            model,
            ask=asked.invoke,
            ask_async=None if type(model)._agenerate in DETOURS else asked.ainvoke,  # noqa: SLF001 - what a class brings is told by it
            name=name,
            context_window=(model.profile or {}).get("max_input_tokens"),
        )
        self._bound = _bound_of(model)

    async def arguments(self, request: Request) -> dict[str, Any]:
        """Messages, parameters, and what traces show of the call."""
        config = shown(request)
        if (config_of := outer_config.get()) is not None:
            config.update(await config_of(request))
        messages = [KINDS[message.role](message.content) for message in request.messages]
        return {**params_of(request, self._bound), "input": messages, "config": config}

    def completion(self, reply: AIMessage) -> Completion:
        """What the message says; of content in blocks, the text."""
        about = reply.response_metadata
        reason = next((about[key] for key in ("finish_reason", "stop_reason", "done_reason", "stopReason") if about.get(key)), None)
        model = next((about[key] for key in ("model_name", "model") if isinstance(about.get(key), str)), self.name)
        blocked = (about.get("prompt_feedback") or {}).get("block_reason")  # Google's word, of the prompt
        refusal = reply.additional_kwargs.get("refusal") or _blocks(reply, "refusal") or getattr(blocked, "value", blocked)
        calls = reply.tool_calls or reply.invalid_tool_calls
        return completed(_blocks(reply, "text"), reason, refusal, calls, _usage(reply), model)


def shown(request: Request) -> RunnableConfig:
    """What traces show of a call: a name, its depth and its place in the run. `nostream` keeps its tokens out of a user's messages."""
    config = RunnableConfig(run_name=f"rlm.{request.role}", tags=[f"rlm:depth={request.depth}", "nostream"])
    if request.path:
        config["metadata"] = {"rlm_path": request.path}
    return config


def adapt(given: Any) -> LangChainLM:
    """The model in an object of LangChain.

    Raises:
        InputError: There is none.
    """
    name, model = "", given
    while isinstance(model, RunnableBindingBase):
        name = name or model.kwargs.get("model", "")
        model = model.bound
    if not isinstance(model, BaseChatModel):
        what = "of LangChain's objects, a BaseChatModel can be asked, as it is or bound (bind, with_config)"
        raise InputError(f"{what}, not a {type(model).__name__}")
    return LangChainLM(given, model, name or name_from(model, "model_name", "model", "model_id", "deployment_name"))


def _bound_of(model: BaseChatModel) -> str | None:
    """How the class calls the bound of a reply; None where it takes none with a call."""
    fields = type(model).model_fields
    if "num_predict" in fields:  # Ollama's: only the object itself can have one
        return None
    return "max_output_tokens" if "max_output_tokens" in fields else "max_tokens"


def _blocks(message: AIMessage, kind: str) -> str | None:
    """What the message's blocks of a kind say, which are named and keyed alike; None where there are none."""
    if isinstance(message.content, str):
        return message.content if kind == "text" else None
    parts = [{"type": "text", "text": each} if isinstance(each, str) else each for each in message.content]
    said = [part.get(kind) for part in parts if part.get("type") == kind]
    return "".join(each for each in said if isinstance(each, str)) if said else None


def _usage(message: AIMessage) -> Usage | None:
    counts = message.usage_metadata
    if counts is None:
        return None
    cached: Mapping[str, Any] = counts.get("input_token_details") or {}
    reasoning: Mapping[str, Any] = counts.get("output_token_details") or {}
    return usage_from(counts["input_tokens"], counts["output_tokens"], cached.get("cache_read"), reasoning.get("reasoning"))
