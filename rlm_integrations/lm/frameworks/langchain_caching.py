"""Cache points for Anthropic's models: only what a request marks is cached there."""

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables.base import RunnableBindingBase

_MARK: Final = "cache_control"


def takes_cache_points(asked: object, models: Sequence[BaseChatModel]) -> bool:
    """Whether all models are Anthropic's, and the user has not marked what is cached."""
    while isinstance(asked, RunnableBindingBase):
        if _MARK in asked.kwargs:
            return False
        asked = asked.bound
    return bool(models) and all(
        _is_anthropic(each) and _MARK not in (getattr(each, "model_kwargs", None) or {})
        for each in models
    )


def with_cache_points(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages, with cache points on the system prompt and on the last message.

    The next turn finds the longest prefix that was cached, so the last point of each turn suffices.
    All texts become blocks: only the mark of an earlier message is missing in the next request.
    """
    marked = {0 if messages[0].type == "system" else len(messages) - 1, len(messages) - 1}
    return [
        each.model_copy(update={"content": [_block(str(each.content), is_marked=at in marked)]})
        for at, each in enumerate(messages)
    ]


def _block(text: str, *, is_marked: bool) -> dict[str, Any]:
    return {
        "type": "text",
        "text": text,
        **({_MARK: {"type": "ephemeral"}} if is_marked and text else {}),
    }


def _is_anthropic(model: BaseChatModel) -> bool:
    # Its subclasses for other transports, such as Bedrock's, send the same blocks
    return any(each.__module__.startswith("langchain_anthropic.") for each in type(model).__mro__)
