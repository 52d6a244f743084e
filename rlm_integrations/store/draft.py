"""An object before it is kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rlm_integrations.records import SpanRef
from rlm_integrations.store import checks
from rlm_integrations.store.content import Content, encode


class Draft(NamedTuple):
    """What an object is made of, checked and in the order of the fields of `events.Created`."""

    type: str
    description: str
    content: Content
    backrefs: tuple[SpanRef, ...]
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
    corpus: checks.SpanText | None,
    parent: Callable[[str, Any], str],
) -> Draft:
    """The draft of the arguments of `create`.

    Spans must lie in the corpus; without one, only their shape is checked. `parent` gets the name of an entry for messages and the entry,
    and gives the id of the parent that is meant, or raises.

    Raises:
        InputError: One of them cannot stand in a store.
    """
    spans = checks.several("backrefs", backrefs, checks.span)
    if corpus is not None:
        checks.spans_exist(spans, corpus)
    return Draft(
        checks.word("type", type),
        checks.text("description", description, checks.DESCRIPTION_CHARS),
        encode(content),
        spans,
        checks.several("parents", parents, parent),
        checks.several("tags", tags, checks.word),
    )
