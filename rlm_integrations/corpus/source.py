"""The properties of one source of a corpus."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from rlm_integrations.corpus.fixed_width import MAXCHARS, WIDTHS
from rlm_integrations.corpus.layout import Layout
from rlm_integrations.corpus.places import Place

_EMPTY: Final[Mapping[str, Any]] = {}


_UNPRINTABLE: Final = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_name(name: object) -> bool:
    """Whether a source may have this name: a string without line breaks, control characters and
    lone surrogates.
    """
    return isinstance(name, str) and bool(name) and _UNPRINTABLE.search(name) is None


@dataclass(frozen=True, slots=True)
class Source:
    """The properties of one source.

    Attributes:
        name: The key of a named text; else `context_0`, `context_1` and so on.
        length: How many characters it has.
        sha256: The hash of its UTF-8 bytes in hexadecimal; lone surrogates are encoded with
            "surrogatepass".
        maxchar: The least of 127, 255, 65,535 and 1,114,111 that no character exceeds.
        metadata: The document's metadata, in JSON's types.
        document_id: The document's own id, or None.
        hidden: The keys of `metadata` that `context_metadata` omits: no model may see them.
        label: The name by which people know the text: its key, or the name of its file. None for
            others.
        layout: What its places are called; None if they are lines.
    """

    name: str
    length: int
    sha256: str
    maxchar: int
    metadata: Mapping[str, Any]
    document_id: str | None = None
    hidden: frozenset[str] = frozenset()
    label: str | None = None
    layout: Layout | None = None

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
        name: str | None = None,
        label: str | None = None,
        layout: Layout | None = None,
    ) -> Self:
        """The source number `number` of a corpus, whose text is at this place."""
        maxchar = MAXCHARS[place.run.widest(place.start, place.end)]
        length = place.end - place.start
        name = f"context_{number}" if name is None else name
        return cls(name, length, sha256, maxchar, metadata, document_id, hidden, label, layout)

    def cut(self, name: str, place: Place, sha256: str) -> "Source":
        """The properties of a part of this source."""
        maxchar = MAXCHARS[place.run.widest(place.start, place.end)]
        length = place.end - place.start
        layout = self.layout if length == self.length else None  # places are looked up in the root
        return replace(
            self, name=name, length=length, sha256=sha256, maxchar=maxchar, layout=layout
        )

    @property
    def is_object(self) -> bool:
        """Whether code gets an object that is made from the text, which is JSON."""
        return self.layout is not None and self.layout.is_object

    @property
    def described(self) -> dict[str, Any]:
        """Its entry in the REPL's `context_metadata`."""
        shown = {key: value for key, value in self.metadata.items() if key not in self.hidden}
        own_id = {"id": self.document_id} if self.document_id is not None else {}
        return {"name": self.name, "characters": self.length, **own_id, "metadata": shown}

    @property
    def width(self) -> int:
        """The bytes of a character in a Python string of this text."""
        return WIDTHS[MAXCHARS.index(self.maxchar)]
