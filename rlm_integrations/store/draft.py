"""An object before it is kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rlm_integrations.records import SpanRef
from rlm_integrations.store import checks
from rlm_integrations.store.content import Content, encode_content

Spans = tuple[SpanRef, ...]


class Draft(NamedTuple):
    """What an object is made of, checked and in the order of the fields of `log.Created`."""

    type: str
    description: str
    content: Content
    backrefs: Spans
    parents: tuple[str, ...]
    tags: tuple[str, ...]


def draft(
    type: Any,  # noqa: A002 - the fields' names are the contract
    description: Any,
    content: Any,
    backrefs: Any,
    parents: Any,
    tags: Any,
    *,
    spans: Callable[[Spans], Spans],
    parent: Callable[[str, Any], str],
) -> Draft:
    """The draft of the arguments of `create`.

    `spans` gets spans of the right shape and gives them as they are kept, or raises. `parent` gets
    what messages call an entry, and the entry; it gives the id of the parent that is meant, or
    raises.

    Raises:
        InputError: One of them cannot stand in a store.
    """
    return Draft(
        checks.word("type", type),
        checks.text("description", description, checks.DESCRIPTION_CHARS),
        encode_content(content),
        spans(checks.several("backrefs", backrefs, checks.span)),
        checks.several("parents", parents, parent),
        checks.several("tags", tags, checks.word),
    )
