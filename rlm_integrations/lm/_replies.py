"""What the body of a chat completion means: plain functions over parsed JSON."""

from collections.abc import Mapping
from typing import Any

from rlm_integrations.errors import ModelError
from rlm_integrations.records import Completion, Usage


def completion_of(body: Any, model: str) -> Completion:
    """The answer that a response's body holds.

    Raises:
        ModelError: It holds none; `type` is "bad_response", or as `answer` says.
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
    """The completion, where there is one.

    An answer that was cut (`finish_reason` "length" or "content_filter") is an answer, and so is an
    empty one: some questions have none. Text beside tool calls is the answer; the calls are
    nobody's.

    Raises:
        ModelError: "refusal" where the model or its filter declined, "tool_calls" where it only
            called tools, "empty" where it said nothing at all, or was cut before its first word.
    """
    if text or (text is not None and finish_reason == "stop" and not refusal and not calls):
        return Completion(
            text, usage, model, finish_reason if isinstance(finish_reason, str) else None
        )
    if refusal or finish_reason == "content_filter":
        raise ModelError(
            f"{model!r} refused: {refusal or 'its content filter kept the answer back'}",
            type="refusal",
        )
    if calls:
        raise ModelError(
            f"{model!r} called tools and wrote no answer: leave `tools` out of the parameters",
            type="tool_calls",
        )
    if finish_reason == "length":
        raise ModelError(
            f"{model!r} was cut off before its first word: raise max_completion_tokens",
            type="empty",
        )
    raise ModelError(
        f"{model!r} sent no content (finish_reason {finish_reason!r})", type="empty", retryable=True
    )


class Streamed:
    """The events of a stream, added up."""

    def __init__(self, model: str) -> None:
        self._asked = self._model = model
        self._text: list[str] = []
        self._refusal, self._calls = "", False
        self._finish_reason: Any = None
        self._usage: Usage | None = None

    def add(self, event: Any) -> str:
        """The text that this event brings, often none."""
        try:
            self._usage = usage_of(event) or self._usage
            self._model = str(event.get("model") or self._model)
            choice = (event.get("choices") or [{}])[0]
            # The whole message where the server does not stream
            delta = choice.get("delta") or choice.get("message") or {}
            self._refusal += delta.get("refusal") or ""
            self._calls = self._calls or bool(delta.get("tool_calls"))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            text = _text(delta.get("content")) or ""
        except (TypeError, LookupError, AttributeError):
            raise ModelError(
                f"{self._asked!r} sent an event that is none: {str(event)[:200]}",
                type="bad_response",
                retryable=True,
            ) from None
        self._text.append(text)
        return text

    def completion(self) -> Completion:
        """What `answer` says of it. No text at all counts as none: streams begin with an empty
        piece whatever follows.
        """
        if self._finish_reason is None:
            raise ModelError(
                f"{self._asked!r} broke off in the middle of its answer",
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
    """The provider's token counts, or None where it sent none or nonsense."""
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
