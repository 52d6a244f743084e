"""LlamaIndex tracing and token counting for models that are not LlamaIndex's."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import NullEventHandler
from llama_index_instrumentation.span_handlers import NullSpanHandler

from rlm_integrations.lm.base import LM
from rlm_integrations.lm.frameworks.llama_index import LlamaIndexLM
from rlm_integrations.records import Completion, Request

if TYPE_CHECKING:
    from llama_index_instrumentation.dispatcher import Dispatcher

# The dispatcher for calls of LlamaIndex's own models
_dispatcher = get_dispatcher("llama_index.core.llms.callbacks")


class _Call:
    """One model call that passes through LlamaIndex's wrappers."""

    def __init__(self, lm: LM, request: Request) -> None:
        self.lm = lm
        self.request = request
        self.completion: Completion | None = None


_call: ContextVar[_Call] = ContextVar("call")


def traced(lm: LM, callbacks: Callable[[], CallbackManager]) -> LM:
    """The model with LlamaIndex tracing; LlamaIndex's own models already have it.

    Args:
        lm: The model.
        callbacks: Returns the callback manager that receives its calls.
    """
    return lm if isinstance(lm, LlamaIndexLM | TracedLM) else TracedLM(lm, callbacks)


class TracedLM:
    """A model whose calls LlamaIndex reports as spans, events and callbacks, if any handler
    listens.
    """

    def __init__(self, lm: LM, callbacks: Callable[[], CallbackManager]) -> None:
        self.traced = lm
        self.name = lm.name
        self.context_window = lm.context_window
        self._callbacks = callbacks
        self._shown: NamedModel | None = None

    def __getattr__(self, name: str) -> Any:
        """All other attributes are the model's, such as the key of its limiter."""
        if name.startswith("_") or name == "traced":  # during a copy, before `__init__`
            raise AttributeError(name)
        return getattr(self.traced, name)

    async def complete(self, request: Request) -> Completion:
        """The model's answer."""
        callbacks = self._callbacks()
        if not callbacks.handlers and not _is_watched():
            return await self.traced.complete(request)
        call = _Call(self.traced, request)
        token = _call.set(call)
        try:
            await self._shown_to(callbacks).achat(
                [
                    ChatMessage(message.content, role=MessageRole(message.role))
                    for message in request.messages
                ]
            )
        finally:
            _call.reset(token)
        if call.completion is None:
            raise RuntimeError("a call of a model ended without a completion")
        return call.completion

    def _shown_to(self, callbacks: CallbackManager) -> "NamedModel":
        if self._shown is None or self._shown.callback_manager is not callbacks:
            self._shown = NamedModel(
                model=self.name, context_window=self.context_window or 0, callback_manager=callbacks
            )
        return self._shown


class NamedModel(CustomLLM):
    """The LlamaIndex model that traces show for a model given by name.

    Only `TracedLM` calls it.
    """

    model: str
    context_window: int

    @classmethod
    def class_name(cls) -> str:
        """The name in traces."""
        return "NamedModel"

    @property
    def metadata(self) -> LLMMetadata:
        """The model's name, and its context window if known."""
        return LLMMetadata(
            model_name=self.model, context_window=self.context_window, is_chat_model=True
        )

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        """The completion of the current call."""
        del messages  # the same as the request's
        call = _call.get()
        completion = call.completion = await call.lm.complete(call.request)
        raw: dict[str, Any] = {"model": completion.model, "finish_reason": completion.finish_reason}
        if (usage := completion.usage) is not None:
            raw["usage"] = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            }
        return ChatResponse(
            message=ChatMessage(completion.text, role=MessageRole.ASSISTANT), raw=raw
        )

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Not offered."""
        raise NotImplementedError("a model given by name can be called by runs only")

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Not offered."""
        raise NotImplementedError("a model given by name can be called by runs only")


def _is_watched() -> bool:
    """Whether any span or event handler receives model calls."""
    dispatcher: Dispatcher | None = _dispatcher
    while dispatcher is not None:
        if not all(isinstance(each, NullEventHandler) for each in dispatcher.event_handlers):
            return True
        if not all(isinstance(each, NullSpanHandler) for each in dispatcher.span_handlers):
            return True
        dispatcher = dispatcher.parent if dispatcher.propagate else None
    return False
