"""Batches over real sockets: no prompt is lost or sent twice, and nothing keeps running, whatever
the provider does.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rlm_integrations import LLMError, allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
from rlm_integrations.events import CallRetried, Event, LimiterChanged
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.limiter import limiter_of
from rlm_integrations.lm.openai import OpenAILM
from tests.standin import (
    Fault,
    RemoteStandIn,
    StandIn,
    answer_to,
    serve_in_process,
    serve_in_thread,
)

COUNT = 0


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve_in_thread() as standin:
        yield standin


@pytest.fixture
def far_server() -> Iterator[RemoteStandIn]:
    """A stand-in in a separate process: for tests that measure times."""
    with serve_in_process() as standin:
        yield standin


def model(server: StandIn | RemoteStandIn) -> OpenAILM:
    """A model with its own limiter."""
    global COUNT  # noqa: PLW0603 - a port may come again within one run of the tests
    COUNT += 1
    return OpenAILM(f"sub-{COUNT}", base_url=server.base_url)


def prompts(count: int, name: str = "p") -> list[str]:
    return [f"{name}{n}" for n in range(count)]


def answers(asked: list[str]) -> list[str]:
    return [answer_to(prompt) for prompt in asked]


def test_sync_and_async_batches_in_turn(server: StandIn) -> None:
    """Alternating sync and async batches, on new loops and inside running ones, make exactly one
    call per prompt.
    """
    lm = model(server)

    async def cells(name: str) -> None:
        """Both APIs in one running loop, as in a notebook."""
        asked = prompts(15, name)
        assert await allm_batch(asked, lm) == answers(asked)
        assert llm_batch(asked, lm) == answers(asked)
        assert await allm_batch(asked, lm) == answers(asked)
        assert dict(llm_batch_iter(asked, lm)) == dict(enumerate(answers(asked)))

    asked = prompts(25)
    assert llm_batch(asked, lm) == answers(asked)
    assert llm_batch(asked, lm) == answers(asked)
    asyncio.run(cells("a"))
    assert llm_batch(asked, lm) == answers(asked)
    asyncio.run(cells("b"))
    assert asyncio.run(allm_batch(asked, lm)) == answers(asked)
    assert server.stats().calls == 4 * 25 + 2 * 4 * 15


def test_batches_from_many_threads(server: StandIn) -> None:
    """Threads with the sync API and threads with event loops share one model; each gets its own
    answers.
    """
    lm = model(server)
    wrong = []

    def work(number: int) -> None:
        asked = prompts(20, f"thread {number} ")
        for _ in range(3):
            got = llm_batch(asked, lm) if number % 2 else asyncio.run(allm_batch(asked, lm))
            if got != answers(asked):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.stats().calls == 8 * 3 * 20


@pytest.mark.exhaustive
def test_a_thousand_prompts_with_faults(far_server: RemoteStandIn) -> None:
    """With a tenth of the calls refused and a tenth failing, all thousand answers are right, with
    few extra calls.
    """
    lm = model(far_server)
    asked = prompts(1000)
    llm_batch(asked[:50], lm, max_concurrent=50)
    far_server.reset()
    far_server.change(
        latency=0.05, faults=[Fault("rate_limit", rate=0.1), Fault("server", rate=0.1)]
    )
    assert llm_batch(asked, lm, max_concurrent=50) == answers(asked)
    stats = far_server.stats()
    assert stats.most_in_flight <= 50
    assert 1200 <= stats.calls <= 1300


def test_no_call_is_sent_during_a_pause(far_server: RemoteStandIn) -> None:
    """After a 429 with Retry-After, no call of any batch is sent before its time, and all answers
    are right.
    """
    lm = model(far_server)
    asked = prompts(150)
    llm_batch(asked[:20], lm, max_concurrent=20)
    far_server.reset()
    far_server.change(latency=0.03, faults=[Fault("rate_limit", at=(60,), retry_after=1)])
    got: list[list[str]] = []
    events: list[Event] = []
    other = threading.Thread(
        target=lambda: got.append(asyncio.run(allm_batch(asked, lm, max_concurrent=10)))
    )
    other.start()
    assert llm_batch(asked, lm, max_concurrent=10, on_event=events.append) == answers(asked)
    other.join()
    assert got == [answers(asked)]
    calls = far_server.calls()
    assert len(calls) == 301
    # The server's clock is ours. Those that were in flight at the refusal may arrive in the pause.
    [pause, *_] = [
        each for each in events if isinstance(each, LimiterChanged) and each.paused_until
    ]
    assert sum(pause.at < call.arrived < pause.paused_until for call in calls) <= 20


@pytest.mark.parametrize("ceiling", [None, 20])
def test_a_small_batch_does_not_wait_for_a_large_one(
    far_server: RemoteStandIn, ceiling: int | None
) -> None:
    """A small batch does not wait for a large one: while both run, about as many calls of each are
    made.
    """
    far_server.change(latency=0.1, keep_requests=True)
    lm = model(far_server)
    small, large = prompts(10, "small"), prompts(1000, "large")

    async def both() -> None:
        await allm_batch(["warm"], lm)
        if ceiling:
            limiter_of(lm)._ceiling = limiter_of(lm)._cap = ceiling
        task = asyncio.create_task(allm_batch(large, lm, max_concurrent=50))
        while far_server.stats().calls < 100:
            await asyncio.sleep(0.01)
        assert await allm_batch(small, lm) == answers(small)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(both())
    asked = ["small" in each.body["messages"][0]["content"] for each in far_server.requests()]
    first, last = asked.index(True), len(asked) - asked[::-1].index(True)
    assert last - first <= 4 * len(small)


def test_a_hanging_call_does_not_delay_others(far_server: RemoteStandIn) -> None:
    """Other prompts are answered while one call hangs; its slot ends as a timeout after one retry,
    and its connections are closed.
    """
    far_server.change(latency=0.01, faults=[Fault("hang", match="needle")])
    lm = model(far_server)
    llm_batch(prompts(5), lm)
    asked = ["needle", *prompts(60)]
    replies = dict(llm_batch_iter(asked, lm, max_concurrent=4, timeout=0.8))
    assert list(replies)[-1] == 0
    hung = replies.pop(0)
    assert isinstance(hung, LLMError)
    assert (hung.type, hung.retries) == ("timeout", 1)
    assert "did not answer within 0.8 s" in hung.message
    assert [replies[index] for index in range(1, 61)] == answers(asked[1:])
    assert far_server.stats().aborted == 2


def test_a_timeout_frees_the_slot(server: StandIn) -> None:
    """With one call at a time, prompts after a hanging one are still answered."""
    server.change(faults=[Fault("hang", match="needle")])
    lm = model(server)
    llm_batch(["warm"], lm)
    replies = llm_batch(["a", "needle", "b"], lm, max_concurrent=1, timeout=1)
    assert [replies[0], replies[2]] == answers(["a", "b"])
    assert getattr(replies[1], "type", None) == "timeout"
    assert limiter_of(lm).is_idle()


def settled(server: StandIn | RemoteStandIn, aborted: int) -> bool:
    """Whether the server soon has this many aborted calls and no open one."""
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline:
        stats = server.stats()
        if stats.aborted >= aborted and stats.in_flight == 0:
            return True
        time.sleep(0.01)
    return False


async def test_cancelling_a_batch(server: StandIn) -> None:
    """A cancelled batch returns, the server sees every open call abort, and no further call is
    made.
    """
    server.change(faults=[Fault("hang", match="p"), Fault("rate_limit", match="again")])
    lm = model(server)
    await allm_batch(["warm"], lm)
    task = asyncio.create_task(
        allm_batch(
            [*prompts(30), *["again"] * 300], lm, max_concurrent=50, retry=Retry(first_delay=0.05)
        )
    )
    while server.stats().in_flight < 30:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(settled, server, 30)
    calls = server.stats().calls
    await asyncio.sleep(0.3)
    assert server.stats().calls == calls
    assert limiter_of(lm).is_idle()


async def test_leaving_an_iteration_aborts_its_calls(server: StandIn) -> None:
    """Closing the iterator early aborts the calls in flight."""
    server.change(faults=[Fault("hang", match="p")])
    lm = model(server)
    replies = allm_batch_iter(["quick", *prompts(20)], lm)
    assert await anext(replies) == (0, answer_to("quick"))
    while server.stats().in_flight < 10:
        await asyncio.sleep(0.01)
    await replies.aclose()
    assert await asyncio.to_thread(settled, server, 10)
    assert server.stats().calls == 11


def test_a_provider_with_a_small_capacity(far_server: RemoteStandIn) -> None:
    """If a provider accepts only five calls at once, the limiter soon stops sending fifty, every
    answer is right, and events report the limiter's changes.
    """
    far_server.change(latency=0.03, capacity=5)
    lm = model(far_server)
    events: list[Event] = []
    asked = prompts(120)
    assert llm_batch(asked, lm, max_concurrent=50, on_event=events.append) == answers(asked)
    changes = [event for event in events if isinstance(event, LimiterChanged)]
    assert changes[0].ceiling <= 25
    assert min(event.ceiling for event in changes) <= 6
    assert all(event.model == lm.name for event in changes)
    assert {event.error.type for event in events if isinstance(event, CallRetried)} == {
        "rate_limit"
    }
    assert far_server.stats().calls < 3 * 120


def test_events_report_a_pause(server: StandIn) -> None:
    """A pause is reported with its end, on the clock of the events."""
    server.change(faults=[Fault("rate_limit", at=(0,), retry_after=0.5)])
    events: list[Event] = []
    llm_batch(["a"], model(server), on_event=events.append)
    [change] = [
        event for event in events if isinstance(event, LimiterChanged) and event.paused_until
    ]
    assert change.paused_until is not None
    assert 0 < change.paused_until - change.at <= 0.5


@pytest.mark.parametrize(
    ("kind", "type_", "tries"),
    [
        ("auth", "auth", 1),
        ("quota", "quota", 1),
        ("context_length", "context_length", 1),
        ("refusal", "refusal", 1),
        ("server", "server", 3),
    ],
)
def test_failures_keep_their_type(server: StandIn, kind: Any, type_: str, tries: int) -> None:
    """A failure that is not retryable is not retried; its slot has its type, and other prompts are
    answered.
    """
    server.change(faults=[Fault(kind, match="needle")])
    replies = llm_batch(
        ["a", "needle", "b"], model(server), retry=Retry(failures=2, first_delay=0.001)
    )
    assert [replies[0], replies[2]] == answers(["a", "b"])
    assert isinstance(replies[1], LLMError)
    assert (replies[1].type, replies[1].retries) == (type_, tries - 1)
    assert server.stats().calls == 2 + tries


def test_a_port_without_a_server() -> None:
    """Without a server, each slot has a connection error after its retries."""
    with serve_in_thread() as server:
        lm = model(server)
    replies = llm_batch(["a", "b"], lm, retry=Retry(failures=1, first_delay=0.001))
    assert [(reply.type, reply.retries) for reply in replies if isinstance(reply, LLMError)] == [
        ("connection", 1)
    ] * 2
