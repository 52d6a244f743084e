"""The places of texts in byte sources, and how adjacent ones are read at once."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus.fixed_width import (
    BLOCK,
    Memory,
    StoredText,
    decode_fixed,
    read_exactly,
)

_MAX_GROUP_TEXTS: Final = 256  # texts that are read at once


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a text's characters."""

    run: StoredText
    start: int
    end: int

    @property
    def bytes(self) -> tuple[int, int]:
        """The offsets of its first byte in the byte source, and of the byte after its last."""
        run = self.run
        return run.offset + self.start * run.width, run.offset + self.end * run.width

    def is_beside(self, other: "Place") -> bool:
        """Whether the other begins where this one ends, in the same memory."""
        return (
            self.run.store is other.run.store
            and isinstance(self.run.store, Memory)
            and self.bytes[1] == other.bytes[0]
        )

    def steps(self) -> Iterator[str]:
        """The text, a block at a time."""
        for at in range(self.start, self.end, BLOCK):
            spend(BLOCK)
            yield self.run.read(at, min(at + BLOCK, self.end))

    def sha256(self) -> str:
        """The hash of the text's UTF-8 bytes."""
        digest = hashlib.sha256()
        for text in self.steps():
            digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_short(texts: Iterable[tuple[str, Place]], most: int) -> Iterator[tuple[str, str | None]]:
    """The texts by name, each None if it has more than `most` characters.

    Adjacent texts in memory are read at once: in a list of many short texts, each costs a few
    microseconds.
    """
    group: list[tuple[str, Place]] = []
    for name, place in texts:
        is_long = place.end - place.start > most
        if group and (
            is_long or len(group) == _MAX_GROUP_TEXTS or not group[-1][1].is_beside(place)
        ):
            yield from _read_together(group)
            group = []
        if is_long:
            yield name, None
        else:
            group.append((name, place))
    yield from _read_together(group)


def _read_together(group: Sequence[tuple[str, Place]]) -> Iterator[tuple[str, str]]:
    """The texts of adjacent places."""
    if len(group) < 2:
        for name, place in group:
            spend(place.end - place.start)
            yield name, place.run.read(place.start, place.end)
        return
    begin, end = group[0][1].bytes[0], group[-1][1].bytes[1]
    spend(end - begin)
    with group[0][1].run.store.opened() as fd:
        data = read_exactly(fd, end - begin, begin)
    for name, place in group:
        start, stop = place.bytes
        yield name, decode_fixed(data[start - begin : stop - begin], place.run.width)
