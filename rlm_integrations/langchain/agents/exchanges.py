"""Which messages of a conversation may leave it: whole exchanges, the oldest first.

Plain functions over messages. An AI message and the results of its tool calls are one exchange and
are never separated: providers refuse a call without its result, and a result without its call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

# What a transcript cannot hold
_DATA_BLOCKS: Final = frozenset(
    "audio document file image image_url input_audio input_file input_image media video".split()
)
MOVED: Final = "rlm_moved"  # marks the note that takes the place of moved messages
_STEP: Final = 0.25  # of the window is freed at once, so that prefixes change rarely

Count = Callable[[Sequence[AnyMessage]], int]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Messages that stay or leave together.

    Attributes:
        start: The index of the first one.
        messages: The messages.
        is_movable: Whether they may leave: all calls have results, and all content is text.
    """

    start: int
    messages: tuple[AnyMessage, ...]
    is_movable: bool

    @property
    def end(self) -> int:
        """The index after the last one."""
        return self.start + len(self.messages)


def is_data(block: object) -> bool:
    """Whether a content block is an image, a recording or another file."""
    return isinstance(block, dict) and block.get("type") in _DATA_BLOCKS


def split_exchanges(messages: Sequence[AnyMessage]) -> list[Exchange]:
    """The exchanges of a conversation, in order; together they are all of its messages."""
    found, at = [], 0
    while at < len(messages):
        end, is_whole = _end_of(messages, at)
        group = tuple(messages[at:end])
        found.append(Exchange(at, group, is_whole and all(map(_is_movable, group))))
        at = end
    return found


def _end_of(messages: Sequence[AnyMessage], at: int) -> tuple[int, bool]:
    """The end of the exchange that begins here, and whether all calls in it have results."""
    first = messages[at]
    if not isinstance(first, AIMessage):
        return at + 1, not isinstance(first, ToolMessage)
    pending = [call["id"] for call in first.tool_calls]
    invalid = [call["id"] for call in first.invalid_tool_calls]
    end = at + 1
    for index in range(at + 1, len(messages)):
        each = messages[index]
        if isinstance(each, AIMessage) or not (pending or invalid):
            break
        if isinstance(each, ToolMessage):
            for calls in (pending, invalid):
                if each.tool_call_id in calls:
                    calls.remove(each.tool_call_id)
                    end = index + 1
                    break
    # A result without a call in the group, or one that comes too late, belongs to nothing here
    own = {call["id"] for call in [*first.tool_calls, *first.invalid_tool_calls]}
    is_own = all(
        each.tool_call_id in own for each in messages[at:end] if isinstance(each, ToolMessage)
    )
    return end, is_own and not pending


def _is_movable(message: AnyMessage) -> bool:
    has_data = isinstance(message.content, list) and any(map(is_data, message.content))
    return (
        isinstance(message, HumanMessage | AIMessage | ToolMessage)
        and message.id is not None
        and not has_data
        and MOVED not in message.additional_kwargs
    )


def choose(
    messages: Sequence[AnyMessage], count: Count, total: int, most: int, keep_recent: int
) -> list[Exchange]:
    """The exchanges that leave so that a request has at most `most` tokens: the oldest, until a
    quarter of the window is free.

    The first human message and everything before it, the latest human message, and the last
    messages stay. If that is too much, of the last messages only the last exchange stays.

    Args:
        messages: The conversation.
        count: Counts the tokens of messages.
        total: The tokens of the request.
        most: The bound.
        keep_recent: How many of the last messages stay.
    """
    asked = [
        at
        for at, each in enumerate(messages)
        if isinstance(each, HumanMessage) and MOVED not in each.additional_kwargs
    ]
    first, latest = (asked[0], asked[-1]) if asked else (-1, -1)
    candidates = [
        each
        for each in split_exchanges(messages)
        if each.is_movable and each.start > first and not each.start <= latest < each.end
    ]
    chosen: list[Exchange] = []
    recent = len(messages) - keep_recent
    for each in candidates:
        is_recent = each.end > recent
        if total <= (most if is_recent else most * (1 - _STEP)):
            break
        if is_recent and each.end == len(messages):
            break
        chosen.append(each)
        total -= count(each.messages)
    return chosen


def transcript(messages: Sequence[AnyMessage]) -> tuple[str, list[tuple[int, str]]]:
    """The messages as readable text, and where in it each message begins, with its id."""
    parts: list[str] = []
    places: list[tuple[int, str]] = []
    at = 0
    for each in messages:
        part = f"{_heading(each)}\n{_words(each)}\n\n"
        places.append((at, each.id or ""))
        parts.append(part)
        at += len(part)
    return "".join(parts), places


def _heading(message: AnyMessage) -> str:
    if isinstance(message, ToolMessage):
        failed = ", failed" if message.status == "error" else ""
        return f"[result of {message.name or 'a tool'} for call {message.tool_call_id}{failed}]"
    return "[user]" if isinstance(message, HumanMessage) else "[assistant]"


def _words(message: AnyMessage) -> str:
    lines = [_text_of(message.content)]
    if isinstance(message, AIMessage):
        lines += [
            f"calls {call['name']}({call['args']}) as {call['id']}"
            for call in [*message.tool_calls, *message.invalid_tool_calls]
        ]
    return "\n".join(line for line in lines if line)


# In an AI message, its calls are there once more as `tool_calls`, and reasoning is not said
_SILENT_BLOCKS: Final = frozenset(
    "function_call reasoning redacted_thinking thinking tool_call tool_use".split()
)


def _text_of(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") not in _SILENT_BLOCKS:
            parts.append(str(block))
    return "\n".join(parts)
