"""LlamaIndex's models as `LM`s.

Imported when one is passed in, so LlamaIndex is installed.
"""

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms import LLM, CustomLLM

from rlm_integrations.errors import InputError
from rlm_integrations.lm._replies import usage_of
from rlm_integrations.lm.frameworks.base import (
    ForeignLM,
    completed,
    name_from,
    params_of,
    usage_from,
)
from rlm_integrations.lm.frameworks.home_loop import per_object
from rlm_integrations.lm.frameworks.llama_index_structured import (
    check_schema,
    schema_arguments,
    takes_response_format,
    with_fields_as_text,
)
from rlm_integrations.records import BOUND, Completion, Request, Usage


class LlamaIndexLM(ForeignLM[ChatResponse]):
    """An `LLM`, called with `chat` and `achat`, or with `chat_with_tools` and its async form."""

    def __init__(self, model: LLM, method: str = "chat") -> None:
        super().__init__(
            model,
            ask=_chat_of(model, getattr(model, method)),
            ask_async=None if _is_detour(model) else getattr(model, f"a{method}"),
            name=name_from(model, "model", "model_name", "deployment_name"),
            context_window=_window_of(model),
        )
        self._llm = model
        self._messages_name = "messages"
        self._with_tools: _WithTools | None = None
        self._in_config = hasattr(model, "_generation_config")  # Google's takes parameters in there

    async def arguments(self, request: Request) -> dict[str, Any]:
        """Messages and parameters.

        A reply bound that the object itself sets may override the request's.
        """
        params = params_of(request, "max_tokens")
        if BOUND in request.params and self._in_config:
            params["generation_config"] = {
                "max_output_tokens": params.pop("max_tokens"),
                **params.get("generation_config", {}),
            }
        messages = [
            ChatMessage(content, role=MessageRole(role))
            for role, content in self._messages(request)
        ]
        if request.schema is None:
            return {**params, "messages": messages}
        of_schema = schema_arguments(self._llm, request.schema)
        return {**params, **of_schema, self._messages_name: messages}

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        """Check that the model has structured output; see `StructuredLM`.

        Raises:
            InputError: It has none.
        """
        del schema
        check_schema(self._llm)

    async def complete(self, request: Request) -> Completion:
        """The model's answer; see `ForeignLM.complete`."""
        if request.schema is None or takes_response_format(self._llm):
            return await super().complete(request)
        self._with_tools = self._with_tools or _WithTools(self._llm, "chat_with_tools")
        return await ForeignLM.complete(self._with_tools, request)

    def _messages(self, request: Request) -> list[tuple[str, str]]:
        """The messages, preceded by the system prompt of the user's object, which `chat` itself
        does not send.
        """
        messages = [(str(message.role), message.content) for message in request.messages]
        prompt = getattr(self.model, "system_prompt", None)
        if not isinstance(prompt, str) or not prompt:
            return messages
        # Some providers accept only one system message, as the first
        if messages and messages[0][0] == "system":
            return [("system", f"{prompt}\n\n{messages[0][1]}"), *messages[1:]]
        return [("system", prompt), *messages]

    def completion(self, reply: ChatResponse) -> Completion:
        """The completion in the response; the provider's body (`raw`) has the finish reason and the
        token counts.
        """
        body = _as_mapping(reply.raw)
        choice = _as_mapping(next(iter(body.get("choices") or body.get("candidates") or ()), None))
        sent = _as_mapping(choice.get("message"))
        texts = [block.text for block in reply.message.blocks if isinstance(block, TextBlock)]
        parts = _as_mapping(body.get("content")).get("parts") or ()  # Google's
        # LlamaIndex drops empty text.
        is_empty = not texts and (
            sent.get("content") == "" or any(_as_mapping(part).get("text") == "" for part in parts)
        )
        text = "".join(texts) if texts or is_empty else None
        calls = [
            block for block in reply.message.blocks if isinstance(block, ToolCallBlock)
        ] or sent.get("tool_calls")
        reasons = (
            choice.get("finish_reason"),
            body.get("finish_reason"),
            body.get("stop_reason"),
            body.get("done_reason"),
        )
        reason = next((each for each in reasons if each), None)
        return completed(
            text,
            reason,
            sent.get("refusal"),
            calls,
            _usage(body, reply.additional_kwargs),
            str(body.get("model") or self.name),
        )


class _WithTools(LlamaIndexLM):
    """A model that answers in a JSON schema by calling a tool."""

    def __init__(self, model: LLM, method: str) -> None:
        super().__init__(model, method)
        self._messages_name = "chat_history"

    def completion(self, reply: ChatResponse) -> Completion:
        """The completion whose text is the object."""
        return super().completion(with_fields_as_text(reply))


def adapt(given: object) -> LlamaIndexLM:
    """The adapter of a LlamaIndex model.

    Raises:
        InputError: The object is not a model.
    """
    if not isinstance(given, LLM):
        raise InputError(
            f"of LlamaIndex's objects, only an LLM is a model, not a {type(given).__name__}"
        )
    return LlamaIndexLM(given)


def _chat_of(model: LLM, method: Callable[..., ChatResponse]) -> Callable[..., ChatResponse]:
    """A synchronous method of the model.

    If the first call makes the client, concurrent threads would make one each, and leak all but
    one.
    """
    make = getattr(model, "_get_client", None)
    if make is None or not getattr(model, "reuse_client", True):
        return method
    lock = per_object("locks of clients", model, threading.Lock)

    def chat(**arguments: Any) -> ChatResponse:
        with lock:
            make()
        return method(**arguments)

    return chat


def _is_detour(model: LLM) -> bool:
    """Whether its asynchronous method calls the synchronous one, on the event loop.

    The framework wraps both again in every class.
    """
    return inspect.unwrap(type(model).achat) is inspect.unwrap(CustomLLM.achat)


def _window_of(model: LLM) -> int | None:
    """The user's setting. The framework's own metadata is often a guess (3,900)."""
    field = type(model).model_fields.get("context_window")
    given = getattr(model, "context_window", None)
    is_set = (
        field is not None and "context_window" in model.model_fields_set and given != field.default
    )
    return given if is_set and isinstance(given, int) and given > 0 else None


def _as_mapping(value: Any) -> Mapping[str, Any]:
    if hasattr(value, "model_dump"):
        value = value.model_dump(warnings=False)
    return value if isinstance(value, Mapping) else {}


def _usage(body: Mapping[str, Any], more: Mapping[str, Any]) -> Usage | None:
    """The token counts, in the form of OpenAI, Anthropic, Google or Ollama, or as the integration
    repeats them.
    """
    if usage := usage_of(body):
        return usage
    counts = _as_mapping(body.get("usage") or body.get("usage_metadata"))
    if "input_tokens" in counts:  # Anthropic's do not include cached tokens
        cached, written = (
            counts.get("cache_read_input_tokens") or 0,
            counts.get("cache_creation_input_tokens") or 0,
        )
        given = (
            None if counts["input_tokens"] is None else counts["input_tokens"] + cached + written
        )
        details = _as_mapping(counts.get("output_tokens_details"))
        return usage_from(
            given, counts.get("output_tokens"), cached, details.get("thinking_tokens"), written
        )
    if "prompt_token_count" in counts:  # Google's output does not include thinking tokens
        thought = counts.get("thoughts_token_count") or 0
        output = (counts.get("candidates_token_count") or 0) + thought
        return usage_from(
            counts["prompt_token_count"], output, counts.get("cached_content_token_count"), thought
        )
    if "prompt_eval_count" in body:
        return usage_from(body["prompt_eval_count"], body.get("eval_count"))
    return usage_from(more.get("prompt_tokens"), more.get("completion_tokens"))
