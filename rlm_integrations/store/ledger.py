"""All writes to a store: its log, the view derived from it, and a lock around both."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rlm_integrations.errors import InputError
from rlm_integrations.store import checks
from rlm_integrations.store.draft import Draft
from rlm_integrations.store.log import Created, StoreEvent, StoreLog
from rlm_integrations.store.view import View, weight

SPINS: Final = 100  # before a writer blocks, because the lock is held for long work


class Lock:
    """A lock for work of microseconds by many threads.

    A thread that blocks on a plain lock is given it while another holds the GIL, and keeps it until
    it can run: two context switches per write. Spinning with `sleep(0)` takes the lock only when
    this thread can go on at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        for _ in range(SPINS):
            time.sleep(0)
            if self._lock.acquire(blocking=False):
                return
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Ledger:
    """Appends events to the log and then applies them to the view; or raises and does neither."""

    def __init__(
        self,
        corpus: checks.SpanText | None,
        log: StoreLog,
        clock: Callable[[], float],
        max_size: int,
    ) -> None:
        self.corpus = corpus
        self.log = log
        self.view = View(log.since(0))
        self._clock = clock
        self.max_size = max_size
        self.lock = Lock()

    def row(self, name: str, id: Any) -> int:  # noqa: A002 - the field's name is the contract
        """The row of an object; `name` is the argument that messages mention.

        Raises:
            InputError: No object has this id.
        """
        row = self.view.row_of.get(id) if isinstance(id, str) else None
        if row is None:
            raise InputError(
                f"{name}: no object has the id {checks.quote_value(id)}; store.view() lists the objects"
            )
        return row

    def required_id(self, name: str, id: Any) -> str:  # noqa: A002
        """The id itself if it names an object; raises as `row` does."""
        return self.view.rows[self.row(name, id)].id

    def create(
        self,
        worker: str,
        draft: Draft,
        *,
        takes: int = 1,
        number: int | None = None,
        origin: str | None = None,
    ) -> Created:
        """Write one object with the worker's next number, or with one that an earlier object's
        `takes` reserved.
        """
        with self.lock:
            view = self.view
            if number is None:
                number = view.taken.get(worker, 0) + 1
            else:
                takes = 0
            event = Created(
                view.seq + 1,
                self._clock(),
                worker,
                f"{worker}_{number:06d}",
                *draft,
                takes,
                origin,
            )
            self._check_room(weight(event))
            self.log.append((event,))
            view.apply(event)
        return event

    def append(
        self, build: Callable[[View, int, float], Sequence[StoreEvent]]
    ) -> Sequence[StoreEvent]:
        """Write several events or none; `build` gets the view, the number of the first event and the
        time, and must be quick: other writers wait.
        """
        with self.lock:
            events = build(self.view, self.view.seq + 1, self._clock())
            if events:
                self._check_room(sum(map(weight, events)))
                self.log.append(events)
                for event in events:
                    self.view.apply(event)
        return events

    def _check_room(self, size: int) -> None:
        if self.view.size + size > self.max_size:
            raise InputError(
                f"the store is full: it holds {self.view.size:,} of {self.max_size:,} bytes, and {size:,} more do not fit"
            )
