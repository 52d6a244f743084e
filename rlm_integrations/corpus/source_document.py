"""A document of a context before it is read."""

import os
from dataclasses import dataclass, field
from typing import Any

from rlm_integrations.corpus.layout import Layout
from rlm_integrations.corpus.places import Place
from rlm_integrations.corpus.source import Source


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document before it is read.

    Attributes:
        content: The text, the bytes of a file, or the path of the file.
        metadata: In JSON's types.
        id: The document's own id, or None.
        hidden: The keys of `metadata` that no model may see.
        name: The key of a named text, or None.
        label: The name by which people know it: its key, or the name of its file. None for others.
        layout: What the places of its text are called; None if they are lines, or not known yet.
        is_optional: Whether it is left out if it is not text, as the files of a folder are.
    """

    content: str | bytes | os.PathLike[Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    hidden: frozenset[str] = frozenset()
    name: str | None = None
    label: str | None = None
    layout: Layout | None = None
    is_optional: bool = False

    def source(self, number: int, place: Place, sha256: str) -> Source:
        """Its properties as source number `number` of a corpus, with its text at this place."""
        return Source.of_place(
            number,
            place,
            sha256,
            metadata=self.metadata,
            document_id=self.id,
            hidden=self.hidden,
            name=self.name,
            label=self.label,
            layout=self.layout,
        )
