"""What a run reads: documents that stay bound to an engine, an index, or nodes that were just
retrieved.
"""

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
        origins: Of each source, in order.
        names: The names of sources by the ids of their documents, where only one source has that
            id.
        is_blank: Whether there is nothing but white space to read.
        text_of: Gives the whole text of a document that nodes were cut from.
    """

    corpus: Corpus
    origins: Sequence[NodeOrigin]
    names: dict[str, str]
    is_blank: bool
    text_of: TextOf

    @classmethod
    def of(cls, corpus: Corpus, origins: Sequence[NodeOrigin], text_of: TextOf) -> Self:
        """The texts of a corpus; it blocks."""
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
        """Where the text of this source comes from."""
        return self.origins[self.corpus.number(source)]


class TextSource(Protocol):
    """Texts that are opened for a run."""

    async def open(self) -> Texts:
        """The texts.

        Raises:
            InputError: They cannot be read.
        """
        ...

    async def close(self, texts: Texts) -> None:
        """The run is over."""
        ...


class NodeTexts:
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
        limits, origins = self._limits, list[NodeOrigin]()
        things = _WithOrigins(self._things, origins)
        corpus = await build_corpus(
            Corpus.build, things, encoding=limits.encoding, errors=limits.decode_errors
        )
        return await runtime.offload(Texts.of, corpus, origins, self._text_of)

    async def close(self, texts: Texts) -> None:
        """It goes with the run."""
        await finish_despite_cancel(runtime.close_apart(texts.corpus.close))


class BoundTexts:
    """Documents that are read at the first question and kept: fifty megabytes take a while to read.

    Args:
        context: What `RLM` takes as a context.
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
        """The same texts for all who ask."""
        corpus = await self._bound.corpus(self._limits)
        if self._texts is None:  # several may come here at once, and make the same
            self._texts = await runtime.offload(Texts.of, corpus, self._origins, self.text_of)
        return self._texts

    async def close(self, texts: Texts) -> None:
        """They stay."""

    def text_of(self, document_id: str) -> str | None:
        """The whole text of one of the documents; it blocks."""
        texts = portal().run(self.open())
        name = texts.names.get(document_id)
        return texts.corpus.text(name) if name is not None else None


class Once(BoundTexts):
    """Documents that are read for one run, and let go of with it."""

    async def close(self, texts: Texts) -> None:
        """It goes with the run, unless it is the user's own corpus."""
        if texts.corpus is not self._given:
            await finish_despite_cancel(runtime.offload(texts.corpus.close))


class IndexTexts:
    """The texts of an index as it is at each question; what is the same as before is not read
    again.
    """

    def __init__(self, index: BaseIndex[Any], limits: Limits) -> None:
        self._index = index
        self._limits = limits
        self._lock = threading.Lock()
        self._known: tuple[object, BoundTexts] | None = None
        self.text_of: TextOf = text_in(index.docstore)

    async def open(self) -> Texts:
        """The texts."""
        kept = await in_thread(self._current)  # the stores of an index may be on another machine
        return replace(await kept.open(), text_of=self.text_of)

    async def close(self, texts: Texts) -> None:
        """They stay."""

    def _current(self) -> BoundTexts:
        with self._lock:
            nodes, known = Nodes(self._index), self._known
            if known is None or known[0] != nodes.state:
                known = self._known = nodes.state, BoundTexts(nodes, self._limits)
            return known[1]


class _WithOrigins:
    """A list whose items' origins are noted when it is read, however often that is tried."""

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
                "%d of %d nodes are images without text, which models do not see here",
                images,
                len(self._origins),
            )
