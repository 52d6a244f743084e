"""Documents on their way to other machines: once for each node, through Ray's object store."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pickle import PickleBuffer
from typing import Any

import ray
from ray import ObjectRef

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef

_KEPT = "document in Ray's object store"
_MAX_IDLE = 2  # documents that an actor keeps while no run uses them


@dataclass(frozen=True, slots=True)
class PackedText:
    """A text in UTF-8. The processes of a node share its memory; it is not copied to read it."""

    data: bytes | memoryview

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return PackedText, (PickleBuffer(self.data),)


@dataclass(frozen=True, slots=True)
class PackedDocument:
    """A document as Ray's object store has it.

    Attributes:
        is_list: Whether the context is a list.
        sources: The text of each source, and its other properties as a document without text.
        left_out: The files that are left out, and why.
    """

    is_list: bool
    sources: list[tuple[PackedText, SourceDocument]]
    left_out: dict[str, str]

    @classmethod
    def of(cls, corpus: Corpus) -> "PackedDocument":
        """The document of a corpus. Blocks; call it in a thread."""
        texts = (
            PackedText(corpus.text(source.name).encode("utf-8", "surrogatepass"))
            for source in corpus.sources
        )
        sources = [
            (
                text,
                SourceDocument(
                    "",
                    dict(source.metadata),
                    source.document_id,
                    source.hidden,
                    source.name if corpus.is_named else None,
                    source.label,
                    source.layout,
                ),
            )
            for text, source in zip(texts, corpus.sources, strict=True)
        ]
        return cls(corpus.is_list, sources, dict(corpus.left_out))

    def corpus(self) -> Corpus:
        """The corpus again. Blocks; call it in a thread."""
        documents = self._documents()
        return Corpus.build(documents if self.is_list else next(documents), left_out=self.left_out)

    def _documents(self) -> Iterator[SourceDocument]:
        for text, document in self.sources:
            yield replace(document, content=str(text.data, "utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class SentDocument:
    """A document in the object store, or a part of one.

    Attributes:
        whole: The `PackedDocument`.
        parts: What its slice is made of; None for the whole.
        is_list: Whether the slice is a list.
        names: The names of its texts, if it has names.
    """

    whole: ObjectRef
    parts: list[SpanRef | str | list[SpanRef | str]] | None = None
    is_list: bool = False
    names: list[str] | None = None

    @classmethod
    def of(cls, corpus: Corpus) -> "SentDocument":
        """The document of a corpus, which is sent once; a slice is sent as spans. Blocks; call it in
        a thread.
        """
        sliced = corpus.parts()
        if sliced is not None:
            root, parts = sliced
            with suppress(ContextError):  # the root was closed
                names = [each.name for each in corpus.sources] if corpus.is_named else None
                return cls(root.kept(_KEPT, _put), parts, corpus.is_list, names)
        return cls(corpus.kept(_KEPT, _put))


def _put(corpus: Corpus) -> ObjectRef:
    return ray.put(PackedDocument.of(corpus))


@dataclass(slots=True, eq=False)
class _Held:
    """A document in this process, and how many use it."""

    reading: asyncio.Future[Corpus]
    users: int = 0


class HeldDocuments:
    """The documents that a process has read from the object store, each once while it is used."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, _Held] = OrderedDict()

    @asynccontextmanager
    async def open(self, sent: SentDocument) -> AsyncIterator[Corpus]:
        """The corpus of a document."""
        async with self._whole(sent.whole) as whole:
            if sent.parts is None:
                yield whole
                return
            child = await runtime.open_apart(
                whole.slice, sent.parts, is_list=sent.is_list, names=sent.names
            )
            try:
                yield child
            finally:
                await finish_despite_cancel(runtime.close_apart(child.close))

    @asynccontextmanager
    async def _whole(self, reference: ObjectRef) -> AsyncIterator[Corpus]:
        key = reference.hex()
        if key not in self._held:
            self._held[key] = _Held(asyncio.ensure_future(_read(reference)))
        held = self._held[key]
        held.users += 1
        self._held.move_to_end(key)
        try:
            yield await asyncio.shield(held.reading)
        finally:
            held.users -= 1
            await finish_despite_cancel(self._close_idle())

    async def _close_idle(self) -> None:
        idle = [key for key, held in self._held.items() if not held.users]
        for key in idle[:-_MAX_IDLE]:
            reading = self._held.pop(key).reading
            await wait_until_done(reading)
            if not reading.cancelled() and reading.exception() is None:
                await runtime.close_apart(reading.result().close)


async def _read(reference: ObjectRef) -> Corpus:
    packed: PackedDocument = await reference
    return await runtime.open_apart(packed.corpus)
