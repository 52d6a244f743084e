"""The text that stands in an agent's conversation for a longer one that was moved to an archive."""

import re
from typing import Final

from rlm_integrations.added_source import AddedSource

_SHOWN_CHARS: Final = 800  # of the beginning, and of the end
_LOOKED_AT_CHARS: Final = 2_000
_MARKUP: Final = re.compile(r"\s*<(!doctype html|html)\b", re.IGNORECASE)


def make_stub(what: str, source: AddedSource, text: str) -> str:
    """What the model sees instead: the id and size, the beginning and the end, and how to ask.

    Args:
        what: What the text is, such as "The output of search_web".
        source: Where it is now.
        text: The text.
    """
    left = len(text) - 2 * _SHOWN_CHARS
    return (
        f"[{what} has {len(text):,} characters ({_kind_of(text)}). It was moved, whole, to the "
        f"archive of this conversation as {source.id!r}. Its beginning:]\n{text[:_SHOWN_CHARS]}\n"
        f"[… {left:,} characters left out …]\n{text[-_SHOWN_CHARS:]}\n[End of {source.id!r}. "
        f'ask_context(question, ids=["{source.id}"]) answers a question over all of it, '
        "search_context finds words in it, read_context reads a part of it.]"
    )


def is_worth_a_stub(text: str) -> bool:
    """Whether a stub would be shorter."""
    return len(text) > 4 * _SHOWN_CHARS


def _kind_of(text: str) -> str:
    """What kind of text it is, by its beginning."""
    start = text[:_LOOKED_AT_CHARS].lstrip()
    lines = f"{text.count(chr(10)) + 1:,} lines"
    if start.startswith(("{", "[")):
        return f"it looks like JSON, {lines}"
    if _MARKUP.match(start):
        return f"it looks like HTML, {lines}"
    return lines
