"""The contract between a store and its log, including failures of the log."""

import threading
from collections.abc import Sequence

import pytest

from rlm_integrations.errors import InputError
from rlm_integrations.store import SharedStore
from rlm_integrations.store.commit import apply_commit
from rlm_integrations.store.ledger import Lock
from rlm_integrations.store.log import MemoryLog, StoreEvent


class Disk(MemoryLog):
    """A log that can be made to fail."""

    full = False

    def append(self, events: Sequence[StoreEvent]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(events)


def test_a_store_continues_from_its_log() -> None:
    """A store over a log with events has their objects, and continues their numbers."""
    log = MemoryLog()
    worker = SharedStore(log=log).worker("w")
    worker.link("supports", worker.create("note", "one", "c"), worker.create("note", "two", "c"))
    again = SharedStore(log=log)
    assert [card["id"] for card in again.view("supports=w_000002")] == ["w_000001"]
    assert again.worker("w").create("note", "three", "c") == "w_000003"
    assert again.get("w_000003").seq == 4


def test_a_failed_write_is_not_shown() -> None:
    """If the log fails, the writer gets its error, nothing is shown, no number is used, and later
    writes work.
    """
    log = Disk()
    heard: list[StoreEvent] = []
    store = SharedStore(log=log)
    worker = store.worker("w", on_event=heard.append)
    first = worker.create("note", "one", "c")
    log.full = True
    before = store.backend.ledger.view.state()
    writes = [
        lambda: worker.create("note", "two", "c"),
        lambda: worker.invalidate(first, "r"),
        lambda: worker.link("supports", first, first),
        lambda: apply_commit(worker, {"commit_id": "c", "creates": [{"type": "t"}]}),
    ]
    for write in writes:
        with pytest.raises(OSError, match="No space left"):
            write()
    assert store.backend.ledger.view.state() == before
    assert len(heard) == 1
    log.full = False
    assert worker.create("note", "two", "c") == "w_000002"
    assert [event.seq for event in log.since(0)] == [1, 2]


def test_only_memory_is_offered() -> None:
    """Any other backend is refused by name."""
    with pytest.raises(InputError, match="backend must be 'memory', not 'sql'"):
        SharedStore(backend="sql")  # type: ignore[arg-type]


def test_a_writer_waits_for_long_work() -> None:
    """A writer waits for a lock that is held for a long time."""
    lock = Lock()
    entered = threading.Event()

    def wait() -> None:
        with lock:
            entered.set()

    thread = threading.Thread(target=wait)
    with lock:
        thread.start()
        assert not entered.wait(0.1)
    thread.join()
    assert entered.is_set()


def test_an_empty_store_is_true() -> None:
    """A store's length is the number of its valid objects, an empty store is true, and the repr
    shows its size, not its objects.
    """
    store = SharedStore()
    assert store
    assert (len(store), store.seq, repr(store)) == (0, 0, "<SharedStore: 0 objects, 0 events>")
    worker = store.worker("w")
    worker.invalidate(worker.create("note", "secret", "secret"), "r")
    assert (len(store), store.seq, repr(worker)) == (0, 2, "<store of w: 0 objects>")
