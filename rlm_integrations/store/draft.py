"""Checked objects before the store keeps them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rlm_integrations.records import SpanRef
from rlm_integrations.store import checks
from rlm_integrations.store.content import Content, encode_content

Spans = tuple[SpanRef, ...]


class Draft(NamedTuple):
    """The checked fields of an object, in the order of `log.Created`."""

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

    `spans(spans)` returns spans of the right shape as spans of the store's document, or raises.
    `parent(label, value)` returns the parent's id or raises; `label` is used in the message.

    Raises:
        InputError: One of the arguments is invalid.
    """
    return Draft(
        checks.word("type", type),
        checks.text("description", description, checks.DESCRIPTION_CHARS),
        encode_content(content),
        spans(checks.several("backrefs", backrefs, checks.span)),
        checks.several("parents", parents, parent),
        checks.several("tags", tags, checks.word),
    )
