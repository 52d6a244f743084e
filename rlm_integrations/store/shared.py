"""The store of one run: findings with their provenance, written by many workers and seen by all of
them at once.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from os import PathLike
from typing import Any, Final, Literal, Self, TypedDict

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef, StoreObject
from rlm_integrations.store import checks
from rlm_integrations.store.draft import Draft, Spans, draft
from rlm_integrations.store.ledger import Ledger
from rlm_integrations.store.log import (
    LINK_TYPES,
    Invalidated,
    Linked,
    MemoryLog,
    StoreEvent,
    StoreLog,
)
from rlm_integrations.store.provenance import TraceStep, trace
from rlm_integrations.store.query import Query, Term, parse_query
from rlm_integrations.store.search import find_rows, matching
from rlm_integrations.store.text import TextIndex
from rlm_integrations.store.text_index import text_index
from rlm_integrations.store.view import MAPPED, Card, View

# What the REPL's `store` offers of a proxy; `llm_map` and `llm_reduce` need models and are added by
# whoever has them.
REPL_METHODS: Final = frozenset(
    {
        "card_view",
        "children",
        "create",
        "events_since",
        "get",
        "invalidate",
        "link",
        "parents",
        "search",
        "search_text",
        "summary",
        "trace",
        "view",
        "view_others",
    }
)


class Summary(TypedDict):
    """How many objects there are, the first of them, and the most frequent types and tags with
    their counts, highest first.
    """

    total: int
    matches: list[Card]
    types: dict[str, int]
    tags: dict[str, int]


class StoreReader:
    """What can be read of a store, by its owner and by every worker alike.

    A query is written in the language of `query`; without `sort=` the newest object comes first.
    `limit` is from 1 to 10,000, and one in the query goes before it. Whoever passes an id that is
    not there, or anything else that cannot work, gets an `InputError` that says what would.
    """

    def __init__(self, ledger: Ledger, index: Callable[[], TextIndex]) -> None:
        self.ledger = ledger
        self._index = index

    def get(self, id: str) -> StoreObject:  # noqa: A002 - here and below, the argument's name is the contract
        """The object of this id."""
        return self.ledger.view.object(self.ledger.row("id", id))

    def children(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects that were made from this one, oldest first; invalidated ones too.

        The results of an `llm_map` batch come first, in the order of its tasks.
        """
        row = self.ledger.row("id", id)
        view = self.ledger.view
        rows = view.postings["parent"].get(id, ())
        return [
            view.object(child)
            for child in (view.in_task_order(rows) if MAPPED in view.rows[row].tags else rows)
        ]

    def parents(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects that this one was made from."""
        row = self.ledger.row("id", id)
        view = self.ledger.view
        return [view.object(view.row_of[parent]) for parent in view.rows[row].parents]

    def trace(self, id: str) -> list[TraceStep]:  # noqa: A002
        """What an object rests on: itself, its parents, theirs and so on, with the text of their
        spans.

        Each object stands there once, the nearest first, 1,000 at most. Texts are cut at 2,000
        characters, and all together at 1,000,000. After a run, and in a store that was loaded,
        `SharedStore.with_document` gives the document back; without it a text is None.
        """
        row = self.ledger.row("id", id)
        return trace(self.ledger.view, row, self.ledger.corpus)

    def view(self, query: str = "", limit: int = 50) -> list[Card]:
        """The metadata of the objects that match."""
        return self._found(parse_query(query), limit)

    def search(self, query: str = "", limit: int = 50) -> list[Card]:
        """The same as `view`, under the name that is looked for first."""
        return self._found(parse_query(query), limit)

    def search_text(self, text: str, limit: int = 50) -> list[Card]:
        """The metadata of the objects that share words with a text, best first, each with its
        `score`. Any text will do.
        """
        checks.text("text", text, 100_000)
        view = self.ledger.view
        found = self._index().rank(
            view.rows,
            text,
            checks.limit(limit),
            lambda row: row in view.invalid or row >= len(view.rows),
        )
        return [{**view.card(row), "score": score} for row, score in found]

    def summary(self, query: str = "", limit: int = 10) -> Summary:
        """Counts over all objects that match, and the first of them; as many of each as `limit`
        says.
        """
        parsed = parse_query(query)
        matches = self._found(parsed, limit)
        most = parsed.limit or limit
        if parsed.terms or parsed.invalid != "no":
            view = self.ledger.view
            events = [view.rows[row] for row in matching(view, self._index, parsed)]
            types = Counter(event.type for event in events)
            tags = Counter(tag for event in events for tag in event.tags)
            return {
                "total": len(events),
                "matches": matches,
                "types": dict(types.most_common(most)),
                "tags": dict(tags.most_common(most)),
            }
        # The counts are kept up to date, and hold still while the highest are picked
        with self.ledger.lock:
            view = self.ledger.view
            total = len(view.rows) - len(view.invalid)
            return {
                "total": total,
                "matches": matches,
                "types": view.types.top(most),
                "tags": view.tags.top(most),
            }

    def card_view(self, query: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """The little that a prompt needs of each object that matches: id, type, tags, and the
        beginning of the description.
        """
        cards = self._found(parse_query(query), limit)
        return [
            {
                "id": card["id"],
                "type": card["type"],
                "description": card["description"][:200],
                "tags": card["tags"],
            }
            for card in cards
        ]

    def events_since(self, seq: int, limit: int = 1_000) -> list[dict[str, Any]]:
        """The events after a number (0 for all), oldest first: `seq`, `op`, `id`, `type`,
        `description`, `worker`, `ts`.
        """
        if type(seq) is not int or seq < 0:
            raise InputError(
                f"seq must be the number of an event, or 0 for all, not {checks.quote_value(seq)}"
            )
        return [event.brief() for event in islice(self.ledger.log.since(seq), checks.limit(limit))]

    def _found(self, query: Query, limit: int) -> list[Card]:
        view = self.ledger.view
        return [view.card(row) for row in find_rows(view, self._index, query, checks.limit(limit))]


class Importer:
    """`SharedStore.import_(path)`: the store that a file holds; exported again it is the same file,
    byte for byte.

    `store.import_(path)` imports into a store, and gives it back. Where that holds something
    already, a prefix and a slash go before ids and workers.
    """

    def __init__(self, kind: "type[SharedStore]", store: "SharedStore | None") -> None:
        self._kind = kind
        self._store = store

    def __call__(
        self, path: str | PathLike[str], *, corpus: checks.SpanText | None = None, prefix: str = ""
    ) -> "SharedStore":
        """Import a file.

        Args:
            path: What `export` wrote.
            corpus: The document that its spans point into, for a store that is made by this.
            prefix: What goes before ids; without it, the first of "import1", "import2" and so on
                that is free.

        Raises:
            InputError: The file cannot be read, is no export or does not fit; nothing was imported.
        """
        from rlm_integrations.store.export import read_export

        if self._store is not None and corpus is not None:
            raise InputError(
                "this store has its document: give a corpus to SharedStore.import_(path, corpus=…) only"
            )
        store = self._kind(corpus) if self._store is None else self._store
        read_export(store.ledger, path, prefix)
        return store


class ImportInto:
    """Makes `import_` know whether it was called on the class or on a store."""

    def __get__(self, store: "SharedStore | None", kind: "type[SharedStore]") -> Importer:
        return Importer(kind, store)


class SharedStore(StoreReader):
    """An append-only log of events, and the view that follows from it. Safe to use from any number
    of threads and tasks.

    Writes go through `worker`, so that each has an author. They take microseconds; so do reads, but
    those with free text, `desc~` or `text~` after many writes, which first index what is new, and
    queries that must read many objects: call reads off an event loop.

    Args:
        corpus: The document that spans point into. Without one, spans are checked for their shape
            only, and show no text.
        backend: Where the view is kept; "memory" is the one that there is.
        log: Where events are kept, if not with the store. What it holds already is taken in.
        clock: The time of a write, in seconds since 1970.
        max_size: How large the store may grow: bytes of memory, counted as 1,000 for each object or
            link and what its texts take.
    """

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
            Ledger(corpus, MemoryLog() if log is None else log, clock, max_size), cache(text_index)
        )

    def __len__(self) -> int:
        """How many objects there are, invalidated ones aside."""
        view = self.ledger.view
        return len(view.rows) - len(view.invalid)

    def __bool__(self) -> bool:
        """A store is one, also with nothing in it."""
        return True

    def __repr__(self) -> str:
        return f"<SharedStore: {len(self)} objects, {self.seq} events>"

    @property
    def seq(self) -> int:
        """The number of the latest event, 0 before the first."""
        return self.ledger.view.seq

    def worker(
        self,
        name: str,
        *,
        on_event: Callable[[StoreEvent], None] | None = None,
        lift: Callable[[SpanRef], SpanRef] | None = None,
    ) -> "WorkerStoreProxy":
        """The store as one worker sees it.

        Args:
            name: The worker's id, which its objects' ids begin with. All proxies of one name are
                one worker.
            on_event: Called with each event that this proxy has written, in the thread that wrote
                it.
            lift: For a worker whose document is a part of the store's: gives the store's span for
                one of the worker's, of whatever form that came in, or raises `InputError`.
        """
        return WorkerStoreProxy(
            self.ledger, self._index, checks.part("a worker's name", name), on_event, lift
        )

    def rebuild(self) -> None:
        """Make the view anew from the log; nothing changes by it."""
        self.ledger.rebuild()

    import_ = ImportInto()

    def export(self, path: str | PathLike[str]) -> None:
        """Write all events to a file, one JSON object a line; the file appears complete or not at
        all.
        """
        from rlm_integrations.store.export import write

        write(self.ledger.log.since(0), path)

    def to_dict(self) -> dict[str, Any]:
        """The store as plain JSON: what `export` writes, as one object.

        The document is not in it.
        """
        from rlm_integrations.store.export import HEADER, line_of

        return {**HEADER, "events": [line_of(event) for event in self.ledger.log.since(0)]}

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
            store.ledger.append(lambda *_: events)
        except InputError as error:
            raise InputError(f"store: {error}") from None
        return store

    def with_document(
        self, context: object, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> Self:
        """A copy of the store that has its document again, so that `trace` shows the words of
        spans.

        A run lets go of its document at its end, and a file has none. Later writes to the copy are
        not in this store.

        Args:
            context: The document of the run, in any form that `RLM.completion` takes.
            encoding: As in `Limits`.
            errors: As `Limits.decode_errors`.

        Raises:
            ContextError: The context cannot be read.
            InputError: It is another document than the one of the run; of a store that was read
                from a file: a span has no place in it.
        """
        corpus = (
            context
            if isinstance(context, Corpus)
            else Corpus.build(context, encoding=encoding, errors=errors)
        )
        before = self.ledger.corpus
        if isinstance(before, Corpus) and before.sha256 != corpus.sha256:
            raise InputError("this is not the document of the run: its text differs")
        copy = self._copied(corpus)
        for row in copy.ledger.view.rows:
            checks.existing(row.backrefs, corpus)
        return copy

    def _copied(self, corpus: checks.SpanText | None) -> Self:
        return type(self)(
            corpus, log=MemoryLog(self.ledger.log.since(0)), max_size=self.ledger.max_size
        )

    def __copy__(self) -> Self:
        """A store with the same events and document; later writes to one are not in the other."""
        return self._copied(self.ledger.corpus)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As `__copy__`: events and documents never change."""
        return self._copied(self.ledger.corpus)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the document, which may be large, and without the clock."""
        return _restored, (tuple(self.ledger.log.since(0)), self.ledger.max_size)


def _restored(events: tuple[StoreEvent, ...], max_size: int) -> SharedStore:
    return SharedStore(log=MemoryLog(events), max_size=max_size)


class WorkerStoreProxy(StoreReader):
    """A store as one worker sees it: everything can be read, and what is written bears the worker's
    name.
    """

    def __init__(
        self,
        ledger: Ledger,
        index: Callable[[], TextIndex],
        worker: str,
        on_event: Callable[[StoreEvent], None] | None,
        lift: Callable[[SpanRef], SpanRef] | None,
    ) -> None:
        super().__init__(ledger, index)
        self.name = worker
        self._lift = lift
        self._on_event = on_event

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a worker's view of a store cannot be pickled or copied: pickle the SharedStore, and take its worker(name)"
        )

    def __repr__(self) -> str:
        return f"<store of {self.name}: {len(self.ledger.view.rows)} objects>"

    def create(
        self,
        type: str,  # noqa: A002
        description: str,
        content: Any,
        backrefs: Any = None,
        parents: Any = None,
        tags: Any = None,
    ) -> str:
        """Keep an object; its id.

        Args:
            type: A word such as "note", "claim" or "summary".
            description: What others see in lists.
            content: Any JSON value.
            backrefs: The `SpanRef`s (or dicts of source, start, end) that it rests on.
            parents: The ids of objects that it was made from.
            tags: Words to find it by.
        """
        return self.put(
            draft(
                type,
                description,
                content,
                backrefs,
                parents,
                tags,
                spans=self.spans,
                parent=self.ledger.existing,
            )
        )

    def invalidate(self, id: str, reason: str) -> None:  # noqa: A002
        """Declare an object wrong: it stays, and queries skip it unless they say `invalid=yes` or
        `invalid=any`. The first reason stays.
        """
        row = self.ledger.row("id", id)
        reason = checks.text("reason", reason, checks.DESCRIPTION_CHARS)

        def build(view: View, seq: int, ts: float) -> Sequence[StoreEvent]:
            return (
                ()
                if row in view.invalid
                else (Invalidated(seq, ts, self.name, id, view.rows[row].type, reason),)
            )

        self.append(build)

    def link(self, type: str, src: str, dst: str) -> None:  # noqa: A002
        """Note that one object supports, contradicts or refines another; to note it again changes
        nothing.
        """
        if type not in LINK_TYPES:
            raise InputError(
                f"type must be one of {', '.join(LINK_TYPES)}, not {checks.quote_value(type)}"
            )
        self.ledger.row("src", src)
        self.ledger.row("dst", dst)

        def build(view: View, seq: int, ts: float) -> Sequence[StoreEvent]:
            return (
                ()
                if (type, dst) in view.links.get(src, ())
                else (Linked(seq, ts, self.name, src, type, dst),)
            )

        self.append(build)

    def view_others(self, query: str = "", limit: int = 50) -> list[Card]:
        """The metadata of the objects that match and that other workers wrote."""
        parsed = parse_query(query)
        return self._found(
            replace(parsed, terms=(*parsed.terms, Term("worker", (self.name,), negated=True))),
            limit,
        )

    def spans(self, spans: Spans) -> Spans:
        """The worker's spans as spans of the store's document; raises for one that has no place
        there.
        """
        return checks.existing(
            tuple(map(self._lift, spans)) if self._lift else spans, self.ledger.corpus
        )

    def put(self, made: Draft, *, takes: int = 1, number: int | None = None) -> str:
        """Keep a checked draft, as `Ledger.create` says; its id."""
        event = self.ledger.create(self.name, made, takes=takes, number=number)
        if self._on_event is not None:
            self._on_event(event)
        return event.id

    def append(
        self, build: Callable[[View, int, float], Sequence[StoreEvent]]
    ) -> Sequence[StoreEvent]:
        """Write several events, as `Ledger.append` says; those events."""
        events = self.ledger.append(build)
        if self._on_event is not None:
            for event in events:
                self._on_event(event)
        return events
