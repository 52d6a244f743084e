"""The store of one run: findings with their provenance, written by many workers and visible to all
of them at once.
"""

import time
from collections.abc import Callable
from os import PathLike
from typing import Any, Literal, Protocol, Self

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.store import checks
from rlm_integrations.store.log import Created, MemoryLog, StoreEvent, StoreLog
from rlm_integrations.store.memory import MemoryBackend
from rlm_integrations.store.reader import StoreReader
from rlm_integrations.store.worker import WorkerStoreProxy


class _Import(Protocol):
    def __call__(
        self, path: str | PathLike[str], *, corpus: checks.SpanText | None = None, prefix: str = ""
    ) -> "SharedStore": ...


class _ImportMethod:
    """`SharedStore.import_` makes a store; `store.import_` imports into one."""

    def __get__(self, store: "SharedStore | None", owner: "type[SharedStore]") -> _Import:
        # Both are of the class that this is part of
        return owner._import_new if store is None else store._import_into  # noqa: SLF001


class SharedStore(StoreReader):
    """An append-only log of events, and the view derived from it. Safe to use from any number of
    threads and tasks.

    Writes go through `worker`, so that each has an author. They take microseconds; so do most
    reads. Reads with free text, `desc~` or `text~` first index new objects, and some queries must
    read many objects: do not call reads on an event loop.

    Args:
        corpus: The document that spans point into. Without one, spans are checked for their shape
            only, and show no text.
        backend: Where the view is kept; only "memory" exists.
        log: Keeps the events; by default a `MemoryLog`. The store starts with its events.
        clock: The time of a write, in seconds since 1970.
        max_size: The most bytes of memory, counted as 1,000 for each event plus the size of its
            texts.
    """

    _namespace = ""  # what the names of workers and the ids of calls begin with

    def __init__(
        self,
        corpus: checks.SpanText | None = None,
        *,
        backend: Literal["memory"] = "memory",
        log: StoreLog | None = None,
        clock: Callable[[], float] = time.time,
        max_size: int = 2_000_000_000,
    ) -> None:
        if backend != "memory":
            raise InputError(f"backend must be 'memory', not {checks.quote_value(backend)}")
        super().__init__(
            MemoryBackend(corpus, MemoryLog() if log is None else log, clock, max_size)
        )

    def __len__(self) -> int:
        """The number of objects, without invalidated ones."""
        return self.backend.count_valid()

    def __bool__(self) -> bool:
        """True, also for an empty store."""
        return True

    def __repr__(self) -> str:
        return f"<SharedStore: {len(self)} objects, {self.seq} events>"

    @property
    def seq(self) -> int:
        """The number of the latest event, 0 before the first."""
        return self.backend.seq

    def worker(
        self,
        name: str,
        *,
        on_event: Callable[[StoreEvent], None] | None = None,
        lift: Callable[[SpanRef], SpanRef] | None = None,
    ) -> "WorkerStoreProxy":
        """The store as one worker sees it.

        Args:
            name: The worker's id, with which its objects' ids begin. All proxies with one name are
                one worker.
            on_event: Called with each event that this proxy writes, in the writing thread.
            lift: For a worker whose document is a part of the store's: converts a span of the
                worker's document into one of the store's, or raises `InputError`.
        """
        checked = checks.part("a worker's name", name)
        namespace = self._namespace
        own = f"{namespace}.{checked}" if namespace else checked
        return WorkerStoreProxy(self.backend, own, on_event, lift, namespace=namespace)

    @classmethod
    def _import_new(
        cls, path: str | PathLike[str], *, corpus: checks.SpanText | None = None, prefix: str = ""
    ) -> Self:
        """The store in a file of `export`; exporting it again writes the same bytes.

        Args:
            path: The file.
            corpus: The document that its spans point into.
            prefix: For the import into a store that holds objects; without effect here.

        Raises:
            InputError: The file cannot be read, is not an export or does not fit the document.
        """
        store = cls(corpus)
        store.import_(path, prefix=prefix)
        return store

    def _import_into(
        self, path: str | PathLike[str], *, corpus: checks.SpanText | None = None, prefix: str = ""
    ) -> Self:
        """Import a file of `export` into this store, all of it or nothing; returns the store.

        Args:
            path: The file.
            corpus: Only for `SharedStore.import_(path, corpus=…)`: this store has its document.
            prefix: Put, with a slash, before ids and workers if the store has events already; by
                default the first free one of "import1", "import2" and so on.

        Raises:
            InputError: The file cannot be read, is not an export or does not fit the store; nothing
                was imported.
        """
        from rlm_integrations.store.export import read_export

        if corpus is not None:
            raise InputError(
                "this store has its document: give a corpus to SharedStore.import_(path, "
                "corpus=…) only"
            )
        read_export(self.backend, path, prefix)
        return self

    import_ = _ImportMethod()

    def export(self, path: str | PathLike[str]) -> None:
        """Write all events to a file, one JSON object a line; the file appears complete or not at
        all.
        """
        from rlm_integrations.store.export import write

        write(self.backend.events(0), path)

    def to_dict(self) -> dict[str, Any]:
        """The store as plain JSON: what `export` writes, as one object.

        The document is not in it.
        """
        from rlm_integrations.store.export import HEADER, line_of

        return {**HEADER, "events": [line_of(event) for event in self.backend.events(0)]}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The store that `to_dict` wrote, without a document.

        Raises:
            InputError: It is damaged, or not a store.
        """
        from rlm_integrations.store.export import HEADER, Reader

        if (
            not isinstance(data, dict)
            or data.keys() != {*HEADER, "events"}
            or any(data[key] != HEADER[key] for key in HEADER)
        ):
            raise InputError(f"store must be an object with {HEADER} and events")
        store = cls()
        try:
            events = Reader(None).values(data["events"])
            store.backend.append(lambda *_: events)
        except InputError as error:
            raise InputError(f"store: {error}") from None
        return store

    def with_document(
        self, context: object, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> Self:
        """A copy of the store that has its document again, so that `trace` shows the words of
        spans.

        A run releases its document at its end, and a file has none. Later writes to the copy do not
        change this store.

        Args:
            context: The document of the run, in any form that `RLM.completion` takes.
            encoding: As in `Limits`.
            errors: As `Limits.decode_errors`.

        Raises:
            ContextError: The context cannot be read.
            InputError: It is not the document of the run; or, for a store that was read from a
                file, a span does not fit into it.
        """
        corpus = (
            context
            if isinstance(context, Corpus)
            else Corpus.build(context, encoding=encoding, errors=errors)
        )
        before = self.corpus
        if isinstance(before, Corpus) and before.sha256 != corpus.sha256:
            raise InputError("this is not the document of the run: its text differs")
        copy = self._copied(corpus)
        for event in copy.backend.events(0):
            if isinstance(event, Created):
                checks.existing(event.backrefs, corpus)
        return copy

    def _copied(self, corpus: checks.SpanText | None) -> Self:
        return type(self)(
            corpus, log=MemoryLog(self.backend.events(0)), max_size=self.backend.max_size
        )

    def __copy__(self) -> Self:
        """A store with the same events and document; later writes to one do not change the
        other.
        """
        return self._copied(self.corpus)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As `__copy__`, because events and documents never change."""
        return self._copied(self.corpus)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the document, which may be large, and without the clock."""
        return _restored, (tuple(self.backend.events(0)), self.backend.max_size)


def _restored(events: tuple[StoreEvent, ...], max_size: int) -> SharedStore:
    return SharedStore(log=MemoryLog(events), max_size=max_size)
