"""Parses the body of a chat completion: plain functions over parsed JSON."""

from collections.abc import Mapping
from typing import Any

from rlm_integrations.errors import ModelError
from rlm_integrations.records import Completion, Usage


def completion_of(body: Any, model: str) -> Completion:
    """The completion in a response's body.

    Raises:
        ModelError: It has none; `type` is "bad_response", or as in `completion_or_error`.
    """
    try:
        choice = body["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        text, refusal, calls = (
            _text(message.get("content")),
            message.get("refusal"),
            message.get("tool_calls"),
        )
    except (TypeError, LookupError, AttributeError):
        raise ModelError(
            f"{model!r} sent a body without an answer: {str(body)[:200]}",
            type="bad_response",
            retryable=True,
        ) from None
    return completion_or_error(
        text, finish_reason, refusal, calls, usage_of(body), str(body.get("model") or model)
    )


def completion_or_error(
    text: str | None, finish_reason: Any, refusal: Any, calls: Any, usage: Usage | None, model: str
) -> Completion:
    """The completion in a message.

    A truncated reply (`finish_reason` "length" or "content_filter") still counts as an answer, and
    so does an empty one. If a message has text and tool calls, the text is the answer; the calls
    are ignored.

    Raises:
        ModelError: "refusal" if the model or its filter declined, "tool_calls" if it only called
            tools, "empty" if it sent no content, or was truncated before its first word.
    """
    if text or (text is not None and finish_reason == "stop" and not refusal and not calls):
        return Completion(
            text, usage, model, finish_reason if isinstance(finish_reason, str) else None
        )
    if refusal or finish_reason == "content_filter":
        raise ModelError(
            f"{model!r} refused: {refusal or 'its content filter withheld the answer'}",
            type="refusal",
        )
    if calls:
        raise ModelError(
            f"{model!r} called tools and wrote no answer: remove `tools` from params",
            type="tool_calls",
        )
    if finish_reason == "length":
        raise ModelError(
            f"{model!r} was truncated before its first word: raise max_completion_tokens",
            type="empty",
        )
    raise ModelError(
        f"{model!r} sent no content (finish_reason {finish_reason!r})", type="empty", retryable=True
    )


class Streamed:
    """Adds up the events of a stream."""

    def __init__(self, model: str) -> None:
        self._name = self._model = model
        self._text: list[str] = []
        self._refusal, self._calls = "", False
        self._finish_reason: Any = None
        self._usage: Usage | None = None

    def add(self, event: Any) -> str:
        """Add an event, and return its text, which is often empty."""
        try:
            self._usage = usage_of(event) or self._usage
            self._model = str(event.get("model") or self._model)
            choice = (event.get("choices") or [{}])[0]
            # The whole message, if the server does not stream
            delta = choice.get("delta") or choice.get("message") or {}
            self._refusal += delta.get("refusal") or ""
            self._calls = self._calls or bool(delta.get("tool_calls"))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            text = _text(delta.get("content")) or ""
        except (TypeError, LookupError, AttributeError):
            raise ModelError(
                f"{self._name!r} sent a malformed stream event: {str(event)[:200]}",
                type="bad_response",
                retryable=True,
            ) from None
        self._text.append(text)
        return text

    def completion(self) -> Completion:
        """The completion, as in `completion_or_error`. No text counts as no content, because every
        stream begins with an empty piece.
        """
        if self._finish_reason is None:
            raise ModelError(
                f"{self._name!r} ended its stream before the answer was complete",
                type="bad_response",
                retryable=True,
            )
        return completion_or_error(
            "".join(self._text) or None,
            self._finish_reason,
            self._refusal,
            self._calls,
            self._usage,
            self._model,
        )


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """The provider's token counts, or None if they are missing or invalid."""
    try:
        usage = body["usage"]
        return Usage(
            _count(usage["prompt_tokens"]),
            _count(usage["completion_tokens"]),
            _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
            _count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0),
        )
    except (TypeError, LookupError, AttributeError, ValueError):
        return None


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _text(content: Any) -> str | None:
    """The text of a message's content; some providers send a list of parts."""
    if content is None or isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
