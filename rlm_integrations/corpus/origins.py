"""The parts of a source that come from the root's document."""

from collections.abc import Iterable
from dataclasses import dataclass

from rlm_integrations.records import SpanRef


@dataclass(frozen=True, slots=True)
class SpanOrigin:
    """A part of a source that is a span of the root's document.

    Attributes:
        at: The offset of its first character in the source.
        span: The span of the root's document.
    """

    at: int
    span: SpanRef

    def within(self, cut: SpanRef) -> "SpanOrigin | None":
        """Its part inside this span of the source, relative to the start of the span; None if
        there is none.
        """
        first = max(self.at, cut.start)
        count = min(self.at + length_of(self.span), cut.end) - first
        start = self.span.start + first - self.at
        return (
            SpanOrigin(first - cut.start, SpanRef(self.span.source, start, start + count))
            if count > 0
            else None
        )

    def followed_by(self, other: "SpanOrigin") -> "SpanOrigin | None":
        """Both as one, if the other continues this one in the source and in the root; else None."""
        if self.at + length_of(self.span) == other.at and (self.span.source, self.span.end) == (
            other.span.source,
            other.span.start,
        ):
            return SpanOrigin(self.at, SpanRef(self.span.source, self.span.start, other.span.end))
        return None


class OriginsBuilder:
    """Collects the origins of a source that is made of several parts.

    Attributes:
        length: The characters of all parts so far.
    """

    def __init__(self) -> None:
        self.length = 0
        self._origins: list[SpanOrigin] = []

    def append(self, length: int, origins: Iterable[SpanOrigin] = ()) -> None:
        """Add a part of `length` characters, with its own origins."""
        for origin in origins:
            moved = SpanOrigin(self.length + origin.at, origin.span)
            joined = self._origins[-1].followed_by(moved) if self._origins else None
            if joined:
                self._origins[-1] = joined
            else:
                self._origins.append(moved)
        self.length += length

    def finish(self) -> tuple[SpanOrigin, ...]:
        """The origins, in order; adjacent ones are joined."""
        return tuple(self._origins)


def length_of(span: SpanRef) -> int:
    """How many characters a span has."""
    return span.end - span.start
