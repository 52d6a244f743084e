"""A batch while it runs: replies as they complete, progress, events."""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from rlm_integrations import allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
from rlm_integrations.events import (
    BatchFinished,
    BatchProgress,
    BatchStarted,
    CallFailed,
    CallFinished,
    CallRetried,
    CallStarted,
    Event,
)
from rlm_integrations.records import Completion, Request
from tests._waits import at_every_wait
from tests.lm._local import APIS, QUICK, Batch, Local, failing


@pytest.fixture(params=APIS, ids=lambda api: api.__name__)
def batch(request: pytest.FixtureRequest) -> Batch:
    """The sync and the async API."""
    return request.param  # type: ignore[no-any-return]


def test_replies_come_as_they_complete() -> None:
    """Iteration yields each reply when it arrives, with its prompt's number."""
    release = threading.Event()

    @dataclass
    class Gate(Local):
        async def complete(self, request: Request) -> Completion:
            if request.messages[-1].content == "late":
                await asyncio.to_thread(release.wait, 10)
            return Completion(request.messages[-1].content)

    replies = llm_batch_iter(["late", "early"], Gate())
    assert next(replies) == (1, "early")
    release.set()
    assert list(replies) == [(0, "late")]


async def test_closing_the_iterator_cancels_calls_in_flight() -> None:
    """Closing the iterator cancels open calls and stops pulling prompts before `aclose` returns."""
    lm = Local(act=lambda prompt: prompt, delay=0.0)
    pulled = []

    async def prompts() -> AsyncIterator[str]:
        for n in range(1000):
            pulled.append(n)
            yield str(n)
            lm.delay = 60.0

    replies = allm_batch_iter(prompts(), lm, max_concurrent=5)
    assert await anext(replies) == (0, "0")
    await replies.aclose()
    count = len(pulled)
    assert count <= 7
    assert lm.in_flight == 0
    await asyncio.sleep(0.01)
    assert len(pulled) == count


def test_a_slow_reader_delays_calls() -> None:
    """The number of replies that wait for the reader is bounded, so a slow reader delays further
    calls.
    """
    lm = Local()
    replies = allm_batch_iter((str(n) for n in range(1000)), lm, max_concurrent=3)

    async def read() -> int:
        await anext(replies)
        for _ in range(200):
            await asyncio.sleep(0)
        asked = len(lm.requests)
        await replies.aclose()
        return asked

    assert asyncio.run(read()) <= 10


def test_progress_is_reported(batch: Batch) -> None:
    """`on_progress` is called for every prompt with done, total (None for a generator) and
    failed.
    """
    heard: list[tuple[int, int | None, int]] = []
    batch(
        ["a", None, "b"],
        Local(),
        max_concurrent=1,
        on_progress=lambda *progress: heard.append(progress),
    )
    assert heard == [(1, 3, 0), (2, 3, 1), (3, 3, 1)]
    heard.clear()
    batch(iter(["a"]), Local(), on_progress=lambda *progress: heard.append(progress))
    assert heard == [(1, None, 0)]


def test_a_progress_bar_on_stderr(
    batch: Batch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress bar is written to stderr if that is a terminal, counts failures, and leaves no
    thread behind.
    """
    threads = set(threading.enumerate())
    batch(["a", None, "b"], Local(), show_progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    batch(["a", None, "b"], Local(), show_progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err
    assert "failed=1" in shown.err
    assert {thread.name for thread in set(threading.enumerate()) - threads} <= {"rlm-portal"}


def test_callbacks_that_raise_break_nothing(batch: Batch, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of a callback is logged once, and the batch continues."""

    def broken(*_: object) -> None:
        raise ValueError("mistake")

    with caplog.at_level(logging.ERROR, "rlm_integrations"):
        assert batch(["a", "b"], Local(), on_progress=broken, on_event=broken) == ["re: a", "re: b"]
    assert len([record for record in caplog.records if record.name == "rlm_integrations"]) == 2


def test_events_of_a_batch() -> None:
    """Each call has start and end events under the batch, with retries in between; all times are in
    order.
    """
    events: list[Event] = []
    lm = Local(act=failing(1, type="server", retryable=True))
    llm_batch(["a", None], lm, max_concurrent=1, on_event=events.append, retry=QUICK)
    kinds = [
        BatchStarted,
        CallStarted,
        CallRetried,
        CallFinished,
        BatchProgress,
        CallStarted,
        CallFailed,
        BatchProgress,
        BatchFinished,
    ]
    assert [type(event) for event in events] == kinds
    assert sorted(events, key=lambda event: event.at) == events
    batch, calls = events[0].id, events[1:4]
    assert {event.id for event in events if isinstance(event, BatchProgress | BatchFinished)} == {
        batch
    }
    assert {event.parent for event in calls} == {batch}
    assert len({event.id for event in calls}) == 1
    retried, finished, last = events[2], events[3], events[-1]
    assert isinstance(retried, CallRetried)
    assert (retried.error.type, retried.error.retries) == ("server", 1)
    assert isinstance(finished, CallFinished)
    assert (finished.record.reply, finished.record.retries) == ("a", 1)
    assert isinstance(last, BatchFinished)
    assert (last.done, last.total, last.failed, last.outcome) == (2, 2, 1, "completed")


async def test_events_of_a_cancelled_batch() -> None:
    """Cancelled calls have CallFailed events of type "cancelled", and the batch's end event is
    "cancelled".
    """
    events: list[Event] = []
    task = asyncio.create_task(allm_batch(["a", "b"], Local(delay=60), on_event=events.append))
    while sum(isinstance(event, CallStarted) for event in events) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.record.reply.type for event in events if isinstance(event, CallFailed)] == [
        "cancelled"
    ] * 2  # type: ignore[attr-defined]
    assert isinstance(events[-1], BatchFinished)
    assert events[-1].outcome == "cancelled"


@pytest.mark.parametrize("again", [0, 1])
async def test_a_batch_cancelled_in_any_wait_has_ended(again: int) -> None:
    """Cancelled once or twice, at any await, a batch leaves no call and no task, and its end event
    was emitted.
    """

    @dataclass
    class LettingGo(Local):
        async def complete(self, request: Request) -> Completion:
            try:
                return await super().complete(request)
            finally:
                await asyncio.sleep(0)

    events: list[Event] = []
    model = LettingGo()

    async def work() -> None:
        events.clear()
        await allm_batch(["a", "b", "c"], model, max_concurrent=2, on_event=events.append)

    async for task in at_every_wait(work, again=again):
        assert task.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert model.in_flight == 0
        assert isinstance(events[-1], BatchFinished)
