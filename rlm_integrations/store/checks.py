"""Checks of everything that enters a store. The callers are programs that models wrote: every
argument is checked, and every message says what is accepted.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

from rlm_integrations.errors import InputError, check_count

# Called as checks.quote_value
from rlm_integrations.errors import quote_value as quote_value  # noqa: PLC0414
from rlm_integrations.records import SpanRef
from rlm_integrations.store.query import MAX_RESULTS

NAME_CHARS: Final = 200  # of a type, a tag, a part of an id
ID_CHARS: Final = 1_000
DESCRIPTION_CHARS: Final = 2_000
ENTRIES: Final = 1_000  # tags, parents or backrefs of one object

_PART = re.compile(r"[^/\x00-\x1f\x7f]+")


class SpanText(Protocol):
    """The document as a store sees it; `corpus.Corpus` is one."""

    def length(self, source: str, /) -> int:
        """How many characters a source has; raises `InputError` for an unknown one."""
        ...

    def text(self, source: str, start: int, end: int, /) -> str:
        """Its characters from `start` to `end`, which is not included."""
        ...


def text(name: str, value: object, most: int) -> str:
    """A string, which may be empty."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, not {quote_value(value)}")
    if len(value) > most:
        raise InputError(
            f"{name} of {len(value):,} characters is longer than {most:,}: put long text "
            "into content"
        )
    return value if type(value) is str else str.__str__(value)


def word(name: str, value: object, most: int = NAME_CHARS) -> str:
    """A string that is not only spaces, for a type, a tag or an id."""
    checked = text(name, value, most)
    if not checked or checked.isspace():
        raise InputError(f"{name} must not be empty")
    return checked


def part(name: str, value: object) -> str:
    """A part of an id: without the slash, which joins parts."""
    checked = word(name, value)
    if not _PART.fullmatch(checked):
        raise InputError(f"{name} must have no slashes or control characters: {quote_value(value)}")
    return checked


def several(name: str, value: Any, one: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """Each different entry of a list once, in order; None is an empty list, and a single string or
    span a list of one.
    """
    if value is None:
        return ()
    if isinstance(value, str | dict | SpanRef):
        value = (value,)
    elif not isinstance(value, list | tuple | set | frozenset):
        raise InputError(f"{name} must be a list, not {quote_value(value)}")
    if len(value) > ENTRIES:
        raise InputError(
            f"{name} has {len(value):,} entries, more than {ENTRIES:,}: make several objects "
            "and one that has them as parents"
        )
    return tuple(dict.fromkeys([one(f"{name}[{at}]", entry) for at, entry in enumerate(value)]))


def span(name: str, value: Any) -> SpanRef:
    """A span of the right shape: a `SpanRef`, or its form in JSON."""
    if isinstance(value, dict):
        if (
            not {"source", "start", "end"} <= value.keys() <= {"source", "start", "end", "unit"}
            or value.get("unit", "chars") != "chars"
        ):
            raise InputError(
                f'{name} must be SpanRef(source, start, end) or {{"source": …, "start": …, '
                '"end": …}, in characters'
            )
        value = SpanRef(value["source"], value["start"], value["end"])
    elif value is None:
        raise InputError(
            f"{name} is None, which cite() returns for words that it does not find: leave it "
            "out, or cite exact words"
        )
    elif not isinstance(value, SpanRef):
        raise InputError(f"{name} must be SpanRef(source, start, end), not {quote_value(value)}")
    source = word(f"{name}.source", value.source)
    for field, number in (("start", value.start), ("end", value.end)):
        if type(number) is not int:
            raise InputError(f"{name}.{field} must be an integer, not {quote_value(number)}")
    if not 0 <= value.start <= value.end:
        raise InputError(
            f"{name} runs from {quote_value(value.start)} to {quote_value(value.end)}: it "
            "must be 0 <= start <= end"
        )
    return SpanRef(source, value.start, value.end)


def existing(spans: tuple[SpanRef, ...], corpus: SpanText | None) -> tuple[SpanRef, ...]:
    """The spans, if the document has text for all of them; without a document they are not
    checked.
    """
    for span in spans:
        if corpus is not None and span.end > (length := corpus.length(span.source)):
            raise InputError(
                f"{span.source!r} has {length:,} characters: no span can end at "
                f"{quote_value(span.end)}"
            )
    return spans


def limit(value: Any) -> int:
    """The number of results that a caller wants."""
    return check_count("limit", value, most=MAX_RESULTS)
