"""What a run reads: documents that stay bound to an engine, an index, or nodes that were just retrieved; and where each text comes from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, Document, NodeWithScore, ObjectType, RelatedNodeInfo

from rlm_integrations import _runtime
from rlm_integrations._documents import document
from rlm_integrations._portal import portal
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.bound import Bound
from rlm_integrations.engine.tree import made
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index.index import Nodes
from rlm_integrations.llama_index.nodes import is_slice
from rlm_integrations.records import Limits

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
        """The texts.

        Raises:
            InputError: They cannot be read, or there are none.
        """
        ...

    async def close(self, texts: Texts) -> None:
        """The run is over."""
        ...


class Given:
    """Nodes for one run. In a trace their number shows, and nothing else.

    Args:
        things: The nodes, or texts.
        limits: How files are read.
        text_of: Gives the whole text of a document that nodes were cut from.
    """

    def __init__(self, things: Sequence[object], limits: Limits, text_of: TextOf) -> None:
        self._things = things
        self._limits = limits
        self._text_of = text_of

    def __len__(self) -> int:
        return len(self._things)

    def __repr__(self) -> str:
        return f"<{len(self):,} nodes>"

    async def open(self) -> Texts:
        """A corpus of their own."""
        limits = self._limits
        corpus = await made(Corpus.build, self._things, encoding=limits.encoding, errors=limits.decode_errors)
        return Texts(corpus, [Origin.of(thing) for thing in self._things], self._text_of)

    async def close(self, texts: Texts) -> None:
        """It goes with the run."""
        await _runtime.offload(texts.corpus.close)


class Kept:
    """Documents that are read at the first question and kept: fifty megabytes take a while to read.

    Args:
        context: What `RLM` takes as a context.
        limits: How files are read.
    """

    def __init__(self, context: object, limits: Limits) -> None:
        self._origins: list[Origin] = []
        self._limits = limits
        if document(context) is not None:
            self._origins.append(Origin.of(context))
        elif isinstance(context, list | tuple | Iterator | Nodes):
            context = _Noted(context, self._origins)
        self._bound = Bound(context)

    async def open(self) -> Texts:
        """The same texts for all who ask."""
        corpus = await self._bound.corpus(self._limits)
        if not corpus.sources:
            raise InputError("there are no documents to ask: what was given is empty")
        return Texts(corpus, self._origins or [Origin()] * len(corpus.sources), self.text_of)

    async def close(self, texts: Texts) -> None:
        """They stay."""

    def text_of(self, document_id: str) -> str | None:
        """The whole text of one of the documents; it blocks."""
        corpus = portal().run(self._bound.corpus(self._limits))
        names = [source.name for source in corpus.sources if source.document_id == document_id]
        return corpus.text(names[0]) if len(names) == 1 else None


class Indexed:
    """The texts of an index as it is at each question; what is the same as before is not read again."""

    def __init__(self, index: BaseIndex[Any], limits: Limits) -> None:
        self._index = index
        self._limits = limits
        self._known: tuple[tuple[str, ...], Kept] | None = None

    async def open(self) -> Texts:
        """The texts."""
        nodes, known = Nodes(self._index), self._known
        if known is None or known[0] != nodes.ids:
            known = self._known = nodes.ids, Kept(nodes, self._limits)
        return replace(await known[1].open(), text_of=self.text_of)

    async def close(self, texts: Texts) -> None:
        """They stay."""

    def text_of(self, document_id: str) -> str | None:
        """The text of a whole document, where the index's document store has that too; it blocks."""
        found = self._index.docstore.get_document(document_id, raise_error=False)
        return found.get_content() if isinstance(found, Document) else None


class _Noted:
    """A list whose items' origins are noted when it is read, however often that is tried."""

    def __init__(self, things: Iterable[object], origins: list[Origin]) -> None:
        self._things = things
        self._origins = origins

    def __iter__(self) -> Iterator[object]:
        self._origins.clear()
        for thing in self._things:
            self._origins.append(Origin.of(thing))
            yield thing
