"""Timers of this library keep nothing of the code that started them."""

import asyncio
import gc
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from rlm_integrations import RLM, Budget, CallRetried, Event, ModelError, allm_batch
from rlm_integrations._concurrency.deadlines import end_after, sleep
from rlm_integrations.records import Completion, Request

KEPT: ContextVar[object] = ContextVar("KEPT")


class Thing:
    """The value of a caller's context variable."""


class Finishes:
    """A model in this process whose every reply is a final answer."""

    name, context_window = "finishes", None

    async def complete(self, request: Request) -> Completion:
        return Completion("```repl\nFINAL('so')\n```")


async def batch() -> None:
    await allm_batch(["x"], Finishes(), timeout=600)


async def run() -> None:
    rlm = RLM(Finishes(), budget=Budget(max_seconds=600))
    assert (await rlm.acompletion("What?", "a document")).answer == "so"


@pytest.mark.parametrize("call", [batch, run])
async def test_cancelled_timers_keep_no_callers_context(call: Any) -> None:
    """Cancelled timers, which the event loop keeps until they are due, have no reference to the
    caller's context.
    """

    async def with_a_thing(thing: Thing) -> None:
        KEPT.set(thing)
        await call()

    thing = Thing()
    gone = weakref.ref(thing)
    # Without a timer that is due earlier, the loop drops a cancelled one at once
    earlier = asyncio.get_running_loop().call_later(60, call)
    await asyncio.create_task(with_a_thing(thing))
    del thing
    await asyncio.sleep(0)  # the loop lets go of the step that ended
    gc.collect()
    assert gone() is None
    earlier.cancel()


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_deadline_in_the_past_ends_the_work(seconds: float) -> None:
    """A deadline in the past ends the work at once, as with `asyncio.timeout`."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            end_after(timeout, seconds)
            await asyncio.Event().wait()


async def test_none_sets_no_deadline() -> None:
    """Without seconds there is no timer."""
    async with asyncio.timeout(None) as timeout:
        end_after(timeout, None)
        assert timeout.when() is None


class Refuses:
    """A model whose provider asks to wait a long time."""

    name, context_window = "refuses", None

    async def complete(self, request: Request) -> Completion:
        raise ModelError("slowly", type="rate_limit", retryable=True, retry_after=200.0)


@pytest.mark.parametrize("calls", [1, 3])
async def test_a_cancelled_wait_keeps_no_callers_context(calls: int) -> None:
    """A call that waits for its retry, and calls that wait for the limiter, end with their task."""
    retried = asyncio.Event()

    def notice(event: Event) -> None:
        if isinstance(event, CallRetried):
            retried.set()

    async def with_a_thing(thing: Thing) -> None:
        KEPT.set(thing)
        prompts = [str(number) for number in range(calls)]
        await allm_batch(prompts, Refuses(), max_concurrent=calls, on_event=notice)

    thing = Thing()
    gone = weakref.ref(thing)
    earlier = asyncio.get_running_loop().call_later(60, print)
    task = asyncio.create_task(with_a_thing(thing))
    await retried.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    del thing, task
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    earlier.cancel()


async def test_a_sleep_ends_in_time_and_not_before() -> None:
    """It is a wait like any other: others run meanwhile, and it returns when its time is over."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await sleep(0.01)
    assert loop.time() - begun >= 0.009
    await sleep(0)
