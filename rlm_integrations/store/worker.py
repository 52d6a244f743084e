"""A store as one worker sees it: all reads, and writes under the worker's name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.store import checks
from rlm_integrations.store.backend import Build, StoreBackend, StoreState
from rlm_integrations.store.draft import Draft, NewObject, Spans, draft
from rlm_integrations.store.log import LINK_TYPES, Invalidated, Linked, StoreEvent
from rlm_integrations.store.query import Term, parse_query
from rlm_integrations.store.reader import StoreReader
from rlm_integrations.store.view import Card

# The methods of a proxy that the REPL's `store` offers; the engine adds `llm_map` and `llm_reduce`,
# which call models.
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

RecordCall = Callable[[Any, Sequence[StoreEvent]], tuple[str, bytes]]


class WorkerStoreProxy(StoreReader):
    """A store as one worker sees it: it can read everything, and its writes have its name."""

    def __init__(
        self,
        backend: StoreBackend,
        worker: str,
        on_event: Callable[[StoreEvent], None] | None,
        lift: Callable[[SpanRef], SpanRef] | None,
        origin: str | None = None,
        *,
        namespace: str = "",
        record: RecordCall | None = None,
    ) -> None:
        super().__init__(backend)
        self.name = worker
        self.origin = origin
        self.namespace = namespace
        self._record = record
        self._lift = lift
        self._on_event = on_event

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a worker's view of a store cannot be pickled or copied: pickle the SharedStore, "
            "and take its worker(name)"
        )

    def __repr__(self) -> str:
        return f"<store of {self.name}: {self.backend.count_valid()} objects>"

    def for_call(self, origin: str, record: RecordCall | None = None) -> "WorkerStoreProxy":
        """The same worker's proxy whose events have this `origin`: the id of the call that writes
        them.

        Args:
            origin: The id of the call.
            record: Makes the journal's record of a call from what it returns and the events that it
                has written; for backends that keep records.
        """
        if self.namespace:
            origin = f"{self.namespace}/{origin}"
        return WorkerStoreProxy(
            self.backend,
            self.name,
            self._on_event,
            self._lift,
            checks.word("origin", origin, checks.ID_CHARS),
            namespace=self.namespace,
            record=record,
        )

    def create(
        self,
        type: str,  # noqa: A002
        description: str,
        content: Any,
        backrefs: Any = None,
        parents: Any = None,
        tags: Any = None,
    ) -> str:
        """Keep an object and return its id.

        Args:
            type: A word such as "note", "claim" or "summary".
            description: Shown in lists.
            content: Any JSON value.
            backrefs: The `SpanRef`s (or dicts of source, start, end) that support it.
            parents: The ids of the objects from which it was made.
            tags: Words under which to find it.
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
                parent=self.required_id,
            )
        )

    def invalidate(self, id: str, reason: str) -> None:  # noqa: A002
        """Mark an object as wrong: it stays, and queries skip it unless they say `invalid=yes` or
        `invalid=any`. The first reason stays.
        """
        kind = self._required("id", id).created.type
        reason = checks.text("reason", reason, checks.DESCRIPTION_CHARS)

        def build(state: StoreState, seq: int, ts: float) -> Sequence[StoreEvent]:
            found = state.find(id)
            if found is not None and found.invalid is not None:
                return ()
            return (Invalidated(seq, ts, self.name, id, kind, reason, self.origin),)

        self.append(build)

    def link(self, type: str, src: str, dst: str) -> None:  # noqa: A002
        """Record that one object supports, contradicts or refines another; recording it again
        changes nothing.
        """
        if type not in LINK_TYPES:
            raise InputError(
                f"type must be one of {', '.join(LINK_TYPES)}, not {checks.quote_value(type)}"
            )
        self.required_id("src", src)
        self.required_id("dst", dst)

        def build(state: StoreState, seq: int, ts: float) -> Sequence[StoreEvent]:
            return (
                ()
                if state.has_link(type, src, dst)
                else (Linked(seq, ts, self.name, src, type, dst, self.origin),)
            )

        self.append(build)

    def view_others(self, query: str = "", limit: int = 50) -> list[Card]:
        """The metadata of the matching objects of other workers."""
        parsed = parse_query(query)
        return self._found(
            replace(parsed, terms=(*parsed.terms, Term("worker", (self.name,), negated=True))),
            limit,
        )

    def spans(self, spans: Spans) -> Spans:
        """The worker's spans as spans of the store's document; raises for one that does not fit
        into it.
        """
        return checks.existing(tuple(map(self._lift, spans)) if self._lift else spans, self.corpus)

    def put(
        self,
        made: Draft,
        *,
        takes: int = 1,
        number: int | None = None,
        id: str | None = None,  # noqa: A002
    ) -> str:
        """Keep a checked draft, and return its id; see `NewObject`."""
        backend = self._recording(lambda events: events[0].id)
        event = backend.create(NewObject(self.name, made, takes, number, id, self.origin))
        if self._on_event is not None:
            self._on_event(event)
        return event.id

    def append(
        self, build: Build, returned: Callable[[Sequence[StoreEvent]], Any] = lambda _: None
    ) -> Sequence[StoreEvent]:
        """Write several events or none, and return them.

        No other write happens while `build` runs. `returned` gives what the calling method returns.
        """
        events = self._recording(returned).append(build)
        if self._on_event is not None:
            for event in events:
                self._on_event(event)
        return events

    def _recording(self, returned: Callable[[Sequence[StoreEvent]], Any]) -> StoreBackend:
        record = self._record
        if record is None:
            return self.backend
        return self.backend.recording(lambda events: record(returned(events), events))
