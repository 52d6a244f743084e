"""Messages of LlamaIndex as readable text."""

from collections.abc import Sequence
from typing import Any, Final

from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    CitationBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

_SILENT: Final = frozenset({"cache", "thinking"})  # types of blocks that say nothing


def chat_transcript(messages: Sequence[ChatMessage]) -> str:
    """The messages, each under a line with its role; files in them are only named."""
    return "".join(f"{_heading(each)}\n{_words(each)}\n\n" for each in messages)


def _heading(message: ChatMessage) -> str:
    call = message.additional_kwargs.get("tool_call_id")
    return f"[result of call {call}]" if call else f"[{message.role.value}]"


def _words(message: ChatMessage) -> str:
    lines = [_text_of(block) for block in message.blocks]
    if not any(isinstance(block, ToolCallBlock) for block in message.blocks):  # older integrations
        lines += [f"calls {call}" for call in message.additional_kwargs.get("tool_calls") or ()]
    return "\n".join(line for line in lines if line)


def _text_of(block: Any) -> str:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ToolCallBlock):
        return f"calls {block.tool_name}({block.tool_kwargs}) as {block.tool_call_id}"
    if isinstance(block, CitableBlock):
        return "\n".join([block.title, *map(_text_of, block.content)])
    if isinstance(block, CitationBlock):
        return _text_of(block.cited_content)
    kind = str(getattr(block, "block_type", type(block).__name__))
    return "" if isinstance(block, ThinkingBlock) or kind in _SILENT else f"[{kind}]"
