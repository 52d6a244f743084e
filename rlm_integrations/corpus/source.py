"""The properties of one source of a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from rlm_integrations.corpus.fixed_width import MAXCHARS, WIDTHS
from rlm_integrations.corpus.places import Place

_EMPTY: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Source:
    """The properties of one source.

    Attributes:
        name: `context_0`, `context_1` and so on.
        length: How many characters it has.
        sha256: The hash of its UTF-8 bytes in hexadecimal; lone surrogates are encoded with
            "surrogatepass".
        maxchar: The least of 127, 255, 65,535 and 1,114,111 that no character exceeds.
        metadata: The document's metadata, in JSON's types.
        document_id: The document's own id, or None.
        hidden: The keys of `metadata` that `context_metadata` omits: no model may see them.
    """

    name: str
    length: int
    sha256: str
    maxchar: int
    metadata: Mapping[str, Any]
    document_id: str | None = None
    hidden: frozenset[str] = frozenset()

    @classmethod
    def of_place(
        cls,
        number: int,
        place: Place,
        sha256: str,
        *,
        metadata: Mapping[str, Any] = _EMPTY,
        document_id: str | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> Self:
        """The source number `number` of a corpus, whose text is at this place."""
        maxchar = MAXCHARS[place.run.widest(place.start, place.end)]
        length = place.end - place.start
        return cls(f"context_{number}", length, sha256, maxchar, metadata, document_id, hidden)

    @property
    def width(self) -> int:
        """The bytes of a character in a Python string of this text."""
        return WIDTHS[MAXCHARS.index(self.maxchar)]
