"""What a run reads: documents that stay bound to an engine, or nodes that were just retrieved; and where its texts come from."""

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from llama_index.core.schema import BaseNode, Document, NodeWithScore, ObjectType, RelatedNodeInfo

from rlm_integrations import _runtime
from rlm_integrations._documents import document
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.tree import made
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index.nodes import is_slice

Build = Callable[[object], Corpus]
TextOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a text comes from, without the text.

    Attributes:
        kind: What it is in LlamaIndex; None for a plain text or a file.
        document: The document that a node was cut from, where it says so.
        at: Where it begins in that document, where that is certain by itself.
        score: How well it fits, as a retriever found.
    """

    kind: ObjectType | None = None
    document: RelatedNodeInfo | None = None
    at: int | None = None
    score: float | None = None

    @classmethod
    def of(cls, thing: object) -> "Origin":
        """The origin of a document, a node, or anything else that is a text."""
        score = thing.score if isinstance(thing, NodeWithScore) else None
        node = thing.node if isinstance(thing, NodeWithScore) else thing
        if isinstance(node, Document):
            return cls(ObjectType.DOCUMENT, score=score)
        if not isinstance(node, BaseNode):
            return cls()
        return cls(ObjectType.TEXT, node.source_node, getattr(node, "start_char_idx", None) if is_slice(node) else None, score)


@dataclass(frozen=True, slots=True)
class Texts:
    """A corpus with the origin of each of its sources; `text_of` gives the whole text of a document that nodes were cut from."""

    corpus: Corpus
    origins: Sequence[Origin]
    text_of: TextOf


class Reading(Protocol):
    """Texts that are opened for a run."""

    async def open(self) -> Texts:
        """The texts."""
        ...

    async def close(self, texts: Texts) -> None:
        """The run is over."""
        ...


class Given:
    """Nodes for one run. In a trace their number shows, and nothing else."""

    def __init__(self, things: Sequence[object], build: Build, text_of: TextOf) -> None:
        self._things = things
        self._build = build
        self._text_of = text_of

    def __len__(self) -> int:
        return len(self._things)

    def __repr__(self) -> str:
        return f"<{len(self):,} nodes>"

    async def open(self) -> Texts:
        """A corpus of their own."""
        corpus = await made(self._build, self._things)
        return Texts(corpus, [Origin.of(thing) for thing in self._things], self._text_of)

    async def close(self, texts: Texts) -> None:
        """It goes with the run."""
        await _runtime.offload(texts.corpus.close)


class Bound:
    """Documents that are read at the first question, and kept: fifty megabytes take a while to read.

    Args:
        load: Gives them.
        build: Makes a corpus of them.
        key: What changes where they do; they are then read again.
        text_of: Gives the whole text of a document that nodes were cut from; by default of one of these. It blocks.
    """

    def __init__(
        self, load: Callable[[], object], build: Build, *, key: Callable[[], Hashable] = tuple, text_of: TextOf | None = None
    ) -> None:
        self.text_of = text_of or self._whole
        self._load = load
        self._build = build
        self._key = key
        self._lock = threading.Lock()
        self._read_at: Hashable = None
        self._reading: Future[Texts] | None = None

    async def open(self) -> Texts:
        """The same texts for all who ask, from whatever event loop."""
        return await asyncio.shield(asyncio.wrap_future(self._begin()))

    async def close(self, texts: Texts) -> None:
        """They stay."""

    def _whole(self, document_id: str) -> str | None:
        corpus = self._begin().result().corpus
        names = [source.name for source in corpus.sources if source.document_id == document_id]
        return corpus.text(names[0]) if len(names) == 1 else None

    def _begin(self) -> "Future[Texts]":
        key = self._key()
        with self._lock:
            failed = self._reading is not None and self._reading.done() and self._reading.exception() is not None
            if self._reading is None or failed or key != self._read_at:
                self._read_at = key
                self._reading = _runtime.threads("work", 4).submit(self._read)
            return self._reading

    def _read(self) -> Texts:
        things, origins = self._load(), list[Origin]()
        if isinstance(things, Corpus):
            return Texts(things, [Origin()] * len(things.sources), self.text_of)
        if document(things) is not None:
            origins.append(Origin.of(things))
        elif isinstance(things, list | tuple | Iterator):
            things = _noted(things, origins)
        corpus = self._build(things)
        if not corpus.sources:
            corpus.close()
            raise InputError("there are no documents to ask: what was given is empty")
        return Texts(corpus, origins or [Origin()] * len(corpus.sources), self.text_of)


def _noted(things: Iterable[object], origins: list[Origin]) -> Iterator[object]:
    for thing in things:
        origins.append(Origin.of(thing))
        yield thing
