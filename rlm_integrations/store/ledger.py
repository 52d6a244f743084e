"""All writes to a store: its log, the view derived from it, and a lock around both."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from rlm_integrations.store.draft import NewObject
from rlm_integrations.store.log import Created, Invalidated, Linked, StoreEvent, StoreLog
from rlm_integrations.store.view import View, check_room, weight

SPINS: Final = 100  # before a writer blocks, because the lock is held for long work


class Lock:
    """A lock for work of microseconds by many threads.

    A thread that blocks on a plain lock is given it while another holds the GIL, and keeps it until
    it can run: two context switches per write. Spinning with `sleep(0)` takes the lock only when
    this thread can continue at once.
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

    def __init__(self, log: StoreLog, clock: Callable[[], float], max_size: int) -> None:
        self.log = log
        self.view = View(log.since(0))
        self._clock = clock
        self.max_size = max_size
        self.lock = Lock()
        self._waiting: list[StoreEvent] = []  # restored events whose objects do not exist yet
        self._gaps: dict[
            str, list[int]
        ] = {}  # by worker, numbers of objects that were not restored

    def create(self, new: NewObject) -> Created:
        """Write one object."""
        with self.lock:
            view = self.view
            if new.id is not None and (row := view.row_of.get(new.id)) is not None:
                return view.rows[row]
            if self._gaps and new.needs_number and (gaps := self._gaps.get(new.worker)):
                new = new._replace(number=gaps.pop(0))
            event = new.event(view.seq + 1, self._clock(), view.taken.get(new.worker, 0) + 1)
            check_room(self.view.size, weight(event), self.max_size)
            self._write((event,))
            if self._waiting:
                self._write_waiting()
        return event

    def append(
        self, build: Callable[[View, int, float], Sequence[StoreEvent]]
    ) -> Sequence[StoreEvent]:
        """Write several events or none; `build` gets the view, the number of the first event and
        the time, and must be quick: other writers wait.
        """
        with self.lock:
            events = build(self.view, self.view.seq + 1, self._clock())
            if events:
                check_room(self.view.size, sum(map(weight, events)), self.max_size)
                self._write(events)
        return events

    def restore(self, events: Iterable[StoreEvent]) -> None:
        """Write recorded events to an empty store, with their ids, authors and times, and new
        numbers.

        Some may be missing: an event that refers to a missing object is written as soon as that
        object is created.
        """
        with self.lock:
            self._waiting = list(events)
            self._gaps = _gaps(self._waiting)
            self._write_waiting()

    def _write(self, events: Sequence[StoreEvent]) -> None:
        self.log.append(events)
        for event in events:
            self.view.apply(event)

    def _renumbered(self, event: StoreEvent) -> StoreEvent:
        """A restored event with the next number of the log. Its object also reserves the missing
        numbers below its own.
        """
        if isinstance(event, Created) and (number := _number(event)):
            ahead = number + event.takes - 1 - self.view.taken.get(event.worker, 0)
            return replace(event, seq=self.view.seq + 1, takes=max(0, ahead))
        return replace(event, seq=self.view.seq + 1)

    def _write_waiting(self) -> None:
        """Write the waiting events whose references all exist, in order."""
        is_changed = True
        while is_changed:
            is_changed, left = False, list[StoreEvent]()
            for event in self._waiting:
                if all(id_ in self.view.row_of for id_ in _references(event)):
                    self._write((self._renumbered(event),))
                    is_changed = True
                else:
                    left.append(event)
            self._waiting = left
            is_changed = is_changed and bool(left)


def _number(event: StoreEvent) -> int:
    """The number in an object's id, or 0 for an id without a number."""
    return int(event.id.rpartition("_")[2]) if isinstance(event, Created) and event.takes else 0


def _gaps(events: Iterable[StoreEvent]) -> dict[str, list[int]]:
    """For each worker, the numbers below its highest one that no object has or reserves."""
    used: dict[str, set[int]] = {}
    for event in events:
        if number := _number(event):
            takes = event.takes if isinstance(event, Created) else 0
            used.setdefault(event.worker, set()).update(range(number, number + takes))
    return {
        worker: sorted(set(range(1, max(numbers) + 1)) - numbers)
        for worker, numbers in used.items()
    }


def _references(event: StoreEvent) -> Sequence[str]:
    """The ids of the objects that must exist before the event."""
    match event:
        case Created():
            return event.parents
        case Invalidated():
            return (event.id,)
        case Linked():
            return (event.id, event.dst)
