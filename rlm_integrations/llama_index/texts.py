"""The input of a run: documents that stay bound to an engine, an index, or retrieved nodes."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from llama_index.core.indices.base import BaseIndex

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.portal import portal
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.documents import read_document
from rlm_integrations.engine.threads import build_corpus
from rlm_integrations.faces.document import SharedDocument
from rlm_integrations.llama_index.index import Nodes, text_in
from rlm_integrations.llama_index.origin import NodeOrigin, has_image_only
from rlm_integrations.records import Limits

TextOf = Callable[[str], str | None]
logger = logging.getLogger("rlm_integrations")


@dataclass(frozen=True, slots=True)
class Texts:
    """A corpus with the origin of each of its sources.

    Attributes:
        corpus: The corpus.
        origins: The origin of each source, in order.
        names: Source names by document id, for ids that only one source has.
        is_blank: Whether the whole text is white space.
        text_of: A function from a document id to the document's whole text.
    """

    corpus: Corpus
    origins: Sequence[NodeOrigin]
    names: dict[str, str]
    is_blank: bool
    text_of: TextOf

    @classmethod
    def of(cls, corpus: Corpus, origins: Sequence[NodeOrigin], text_of: TextOf) -> Self:
        """The texts of a corpus. It blocks."""
        counts = Counter(source.document_id for source in corpus.sources)
        names = {
            source.document_id: source.name
            for source in corpus.sources
            if source.document_id and counts[source.document_id] == 1
        }
        is_blank = not any(piece and not piece.isspace() for _, piece in corpus)
        return cls(
            corpus, origins or [NodeOrigin()] * len(corpus.sources), names, is_blank, text_of
        )

    def origin_of(self, source: str) -> NodeOrigin:
        """The origin of a source."""
        return self.origins[self.corpus.number(source)]


class TextSource(Protocol):
    """Provides the texts for runs."""

    async def open(self) -> Texts:
        """The texts.

        Raises:
            InputError: They cannot be read.
        """
        ...

    async def close(self, texts: Texts) -> None:
        """Called at the end of the run."""
        ...


class NodeTexts:
    """Nodes for one run. Traces show only their number.

    Args:
        things: The nodes, or strings.
        limits: How files are read.
        text_of: A function from a document id to the document's whole text.
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
        """Read them into a new corpus."""
        limits, origins = self._limits, list[NodeOrigin]()
        things = _WithOrigins(self._things, origins)
        corpus = await build_corpus(
            Corpus.build, things, encoding=limits.encoding, errors=limits.decode_errors
        )
        return await runtime.offload(Texts.of, corpus, origins, self._text_of)

    async def close(self, texts: Texts) -> None:
        """Does nothing: the corpus is released with the run."""
        await finish_despite_cancel(runtime.close_apart(texts.corpus.close))


class BoundTexts:
    """Documents that are read once, at the first question, and kept: reading large documents is
    slow.

    Args:
        context: Any context that `RLM` accepts.
        limits: How files are read.
    """

    def __init__(self, context: object, limits: Limits) -> None:
        self._origins: list[NodeOrigin] = []
        self._limits = limits
        self._given = context if isinstance(context, Corpus) else None
        self._texts: Texts | None = None
        if read_document(context) is not None:
            self._origins.append(NodeOrigin.of(context))
        elif isinstance(context, list | tuple | Iterator | Nodes):
            context = _WithOrigins(context, self._origins)
        self._bound = SharedDocument(context)

    async def open(self) -> Texts:
        """The texts, shared by all callers."""
        corpus = await self._bound.corpus(self._limits)
        if self._texts is None:  # concurrent callers may compute the same value
            self._texts = await runtime.offload(Texts.of, corpus, self._origins, self.text_of)
        return self._texts

    async def close(self, texts: Texts) -> None:
        """Does nothing: the texts stay open."""

    def text_of(self, document_id: str) -> str | None:
        """The whole text of one of the documents. It blocks."""
        texts = portal().run(self.open())
        name = texts.names.get(document_id)
        return texts.corpus.text(name) if name is not None else None


class Once(BoundTexts):
    """Documents that are read for one run, and closed after it."""

    async def close(self, texts: Texts) -> None:
        """Close the corpus, unless it is the user's own."""
        if texts.corpus is not self._given:
            await finish_despite_cancel(runtime.offload(texts.corpus.close))


class IndexTexts:
    """The current texts of an index at each question; they are read again only if the index has
    changed.
    """

    def __init__(self, index: BaseIndex[Any], limits: Limits) -> None:
        self._index = index
        self._limits = limits
        self._lock = threading.Lock()
        self._known: tuple[object, BoundTexts] | None = None
        self.text_of: TextOf = text_in(index.docstore)

    async def open(self) -> Texts:
        """The texts."""
        kept = await in_thread(self._current)  # in a thread: the stores of an index may be remote
        return replace(await kept.open(), text_of=self.text_of)

    async def close(self, texts: Texts) -> None:
        """Does nothing: the texts stay open."""

    def _current(self) -> BoundTexts:
        with self._lock:
            nodes, known = Nodes(self._index), self._known
            if known is None or known[0] != nodes.state:
                known = self._known = nodes.state, BoundTexts(nodes, self._limits)
            return known[1]


class _WithOrigins:
    """A list that records the origins of its items whenever it is iterated."""

    def __init__(self, things: Iterable[object], origins: list[NodeOrigin]) -> None:
        self._things = things
        self._origins = origins

    def __iter__(self) -> Iterator[object]:
        self._origins.clear()
        images = 0
        for thing in self._things:
            self._origins.append(NodeOrigin.of(thing))
            images += has_image_only(thing)
            yield thing
        if images:
            logger.warning(
                "%d of %d nodes are images without text, which are not shown to models",
                images,
                len(self._origins),
            )
