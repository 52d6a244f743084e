"""A corpus on its way to another process."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlm_integrations.corpus.fixed_width import ByteSource
from rlm_integrations.corpus.places import Place
from rlm_integrations.corpus.source import Source


@dataclass(frozen=True, slots=True)
class Piece:
    """One source on its way to another process, with everything needed to fill a string.

    Attributes:
        file: The index of its descriptor in the order of `Handover.files`.
        offset: Its first byte there.
        chars: How many characters it has.
        stored: The bytes of a character there: 1, 2 or 4.
        maxchar: As in `Source`; its width may be less than `stored`.
    """

    file: int
    offset: int
    chars: int
    stored: int
    maxchar: int


@dataclass(frozen=True, slots=True)
class Handover:
    """A corpus on its way to another process: one piece for each source, in order."""

    pieces: tuple[Piece, ...]
    is_list: bool
    _stores: tuple[ByteSource, ...]

    def files(self) -> Iterator[int]:
        """The descriptors, each open until the next is requested, so that a thousand files need
        one descriptor at a time.

        Raises:
            ContextError: A file has changed since it was read.
        """
        for store in self._stores:
            with store.opened() as fd:
                yield fd

    @classmethod
    def of_places(
        cls, sources: Sequence[Source], places: Sequence[Place], *, is_list: bool
    ) -> "Handover":
        """The handover of these sources, whose texts are at these places."""
        stores: dict[int, tuple[int, ByteSource]] = {}
        pieces = []
        for source, place in zip(sources, places, strict=True):
            run = place.run
            file, _ = stores.setdefault(id(run.store), (len(stores), run.store))
            offset, _ = place.bytes
            pieces.append(Piece(file, offset, source.length, run.width, source.maxchar))
        return cls(tuple(pieces), is_list, tuple(store for _, store in stores.values()))
