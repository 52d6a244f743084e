"""The one place that writes: a log, the view that follows from it, and a lock around both."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rlm_integrations.errors import InputError
from rlm_integrations.store import checks
from rlm_integrations.store.draft import Draft
from rlm_integrations.store.log import Created, StoreEvent, StoreLog
from rlm_integrations.store.view import View, weight

TRIES: Final = 100  # before a writer waits for good: somebody does long work


class Lock:
    """A lock for work of microseconds by many threads.

    Who blocks on a plain lock gets it while another thread runs Python, and holds it while waiting
    to run: then every write costs two switches of threads. Who tries and lets others run gets it
    only when able to go on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        for _ in range(TRIES):
            time.sleep(0)
            if self._lock.acquire(blocking=False):
                return
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Ledger:
    """Keeps an event in the log first, shows it in the view then; or raises and does neither."""

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
        """The row of an object; `name` is what messages call the id.

        Raises:
            InputError: No object has this id.
        """
        row = self.view.row_of.get(id) if isinstance(id, str) else None
        if row is None:
            raise InputError(
                f"{name}: no object has the id {checks.quote_value(id)}; store.view() lists what there is"
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
        """Write one object, under the worker's next number or one that an earlier object's `takes`
        reserved.
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
        """Write several events or none; `build` gets the view, the first one's number and the time,
        and must be quick.
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
