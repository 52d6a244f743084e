"""The events: frozen records, passed to hooks that cannot break a run."""

import dataclasses
import logging
import threading
import time

import pytest

from rlm_integrations import events
from rlm_integrations.events import BatchProgress, BatchStarted, Emitter, Event, new_id


def started() -> BatchStarted:
    return BatchStarted(id="batch-1", total=3, max_concurrent=2)


def test_events_are_frozen_and_timed() -> None:
    """An event cannot be changed, and has its time on the monotonic clock."""
    before = time.monotonic()
    event = started()
    assert before <= event.at <= time.monotonic()
    assert event.parent is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = "other"  # type: ignore[misc] - that is the point
    assert not hasattr(event, "__dict__")


def test_every_event_has_the_common_fields() -> None:
    """Every event has an id, a parent and a time."""
    kinds = [
        each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event)
    ]
    assert len(kinds) >= 9
    for kind in kinds:
        assert [field.name for field in dataclasses.fields(kind)][:3] == ["id", "parent", "at"]
        assert kind.__doc__


def test_an_emitter_without_hooks_is_false() -> None:
    """An emitter without hooks is false, so that callers need not create events."""
    assert not Emitter()
    assert not Emitter(None)
    assert Emitter(print)


def test_hooks_get_each_event_in_order() -> None:
    """Every hook gets every event, in the order in which they were emitted."""
    first: list[Event] = []
    second: list[Event] = []
    emit = Emitter(first.append, None, second.append)
    made = [started(), BatchProgress(id="batch-1", done=1, total=3, failed=0)]
    for event in made:
        emit(event)
    assert first == second == made


def test_a_hook_that_raises_breaks_nothing_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hook's first exception is logged with its traceback, further ones are not; other hooks
    still get every event.
    """
    seen: list[Event] = []

    def broken(_: Event) -> None:
        raise ValueError("broken hook")

    emit = Emitter(broken, seen.append)
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            emit(started())
    assert len(seen) == 3
    assert [record.name for record in caplog.records] == ["rlm_integrations"]
    assert "broken hook" in caplog.text
    assert "BatchStarted" in caplog.text


def test_a_hook_may_end_the_program() -> None:
    """KeyboardInterrupt and SystemExit of a hook are raised."""

    def leave(_: Event) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        Emitter(leave)(started())


def test_ids_are_unique() -> None:
    """Threads that request ids concurrently get different ones."""
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend(new_id("call") for _ in range(500)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 2000
    assert all(each.startswith("call-") for each in ids)
