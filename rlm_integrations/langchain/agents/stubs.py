"""The messages of LangChain with a stub for their text."""

from typing import Any, Final

STUB: Final = "rlm_source"  # marks a message with a stub, with the id of its source


def message_text(content: str | list[Any]) -> str:
    """The text of a message's content, without images and other files."""
    if isinstance(content, str):
        return content
    return "\n".join(
        each if isinstance(each, str) else str(each.get("text", ""))
        for each in content
        if _is_text(each)
    )


def with_stub(content: str | list[Any], stub: str) -> str | list[Any]:
    """The content with the stub for its text; other blocks stay as they are."""
    if isinstance(content, str):
        return stub
    others = [each for each in content if not _is_text(each)]
    return [{"type": "text", "text": stub}, *others] if others else stub


def _is_text(block: object) -> bool:
    if isinstance(block, dict):
        return block.get("type") == "text"
    return isinstance(block, str)
