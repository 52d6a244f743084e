"""The parts of the document from which a run's prompts are probably made."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

_MAX_SEARCHED = 64  # parts


class LikelyParts:
    """Parts of the document, as offsets into its concatenated sources.

    Args:
        parts: The first offset of each, and the one after its last.
    """

    def __init__(self, parts: Iterable[tuple[int, int]]) -> None:
        self._parts: Sequence[tuple[int, int]] = sorted(set(parts))
        # The end of each part, or a later one of the parts before
        self._ends: list[int] = []
        for _, end in self._parts:
            self._ends.append(max(end, self._ends[-1] if self._ends else 0))

    def __contains__(self, place: int) -> bool:
        at = bisect_right(self._parts, (place, place)) - 1
        if at + 1 < len(self._parts) and self._parts[at + 1][0] == place:
            at += 1
        return at >= 0 and place < self._ends[at]

    def around(self, place: int) -> Iterator[tuple[int, int]]:
        """Some of the parts, from the one that has this place on."""
        first = max(0, bisect_right(self._parts, (place, place)) - 1)
        yield from islice(self._parts, first, first + _MAX_SEARCHED)
