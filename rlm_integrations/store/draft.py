"""Checked objects before the store keeps them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rlm_integrations.records import SpanRef
from rlm_integrations.store import checks
from rlm_integrations.store.content import Content, encode_content
from rlm_integrations.store.log import Created

Spans = tuple[SpanRef, ...]


class Draft(NamedTuple):
    """The checked fields of an object, in the order of `log.Created`."""

    type: str
    description: str
    content: Content
    backrefs: Spans
    parents: tuple[str, ...]
    tags: tuple[str, ...]


class NewObject(NamedTuple):
    """A draft that is to be written: with its worker's next number, with one that an earlier object's
    `takes` reserved, or with an id without a number.

    Attributes:
        worker: The worker that writes it.
        draft: Its fields.
        takes: How many numbers it uses, if it has the next one.
        number: The reserved number; None for the next one.
        id: The id without a number. An existing object with that id is not changed.
        origin: The id of the call that writes it, if known.
    """

    worker: str
    draft: Draft
    takes: int = 1
    number: int | None = None
    id: str | None = None
    origin: str | None = None

    @property
    def needs_number(self) -> bool:
        """Whether it has the worker's next number."""
        return self.id is None and self.number is None

    def event(self, seq: int, ts: float, number: int) -> Created:
        """The event that writes it; `number` is the worker's next one."""
        worker, draft, takes, reserved, id_, origin = self
        if id_ is not None or reserved is not None:
            takes = 0
        if id_ is None:
            id_ = f"{worker}_{number if reserved is None else reserved:06d}"
        return Created(seq, ts, worker, id_, *draft, takes, origin)


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
