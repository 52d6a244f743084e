"""The limiter: slots across threads and loops, an adaptive ceiling, pauses, fairness, and no
leaks.
"""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from rlm_integrations._concurrency.portal import portal
from rlm_integrations.errors import ModelError
from rlm_integrations.lm import limiter as module
from rlm_integrations.lm.limiter import MAX_IN_FLIGHT, Limiter, Slot, Verdict, limiter_of
from rlm_integrations.records import Completion, Request


async def take(limiter: Limiter, count: int, group: object = "g") -> list[Slot]:
    return [await limiter.acquire(group) for _ in range(count)]


def give(
    limiter: Limiter, slots: list[Slot], verdict: Verdict, retry_after: float | None = None
) -> None:
    for slot in slots:
        limiter.release(slot, verdict, retry_after=retry_after)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def waiting(
    limiter: Limiter, count: int, group: object = "g"
) -> AsyncIterator[list[asyncio.Task[Slot]]]:
    """This many tasks that wait for a slot; the remaining ones are cancelled at the end."""
    tasks = [asyncio.create_task(limiter.acquire(group)) for _ in range(count)]
    await settle()
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def got(tasks: list[asyncio.Task[Slot]]) -> list[Slot]:
    return [task.result() for task in tasks if task.done() and not task.cancelled()]


async def test_slots_up_to_the_ceiling() -> None:
    """Slots are granted up to the ceiling; the next waiter gets one when a slot is released;
    releasing twice frees only one.
    """
    limiter = Limiter("m", cap=3)
    slots = await take(limiter, 3)
    async with waiting(limiter, 2) as tasks:
        state = limiter.state()
        assert (state.ceiling, state.in_use, state.waiting, state.paused_until) == (3, 3, 2, None)
        limiter.release(slots[0], "other")
        limiter.release(slots[0], "other")
        await settle()
        assert [task.done() for task in tasks] == [True, False]
    give(limiter, slots[1:] + got(tasks), "other")
    assert limiter.is_idle()


def test_shared_between_loops_and_threads() -> None:
    """Many loops in many threads together never have more slots than the ceiling, and every task
    gets one.
    """
    limiter = Limiter("m", cap=7)
    lock = threading.Lock()
    now = most = total = 0

    async def job() -> None:
        nonlocal now, most, total
        for _ in range(20):
            slot = await limiter.acquire(threading.get_ident())
            with lock:
                now += 1
                most = max(most, now)
                total += 1
            await asyncio.sleep(0)
            with lock:
                now -= 1
            limiter.release(slot, "other")

    async def jobs() -> None:
        await asyncio.gather(*(job() for _ in range(20)))

    threads = [threading.Thread(target=asyncio.run, args=(jobs(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, total) == (7, 4 * 20 * 20)
    assert limiter.is_idle()


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    """The slot of a cancelled waiter goes to the next, whether it was still waiting or had just
    been granted a slot.
    """
    limiter = Limiter("m", cap=1)
    [slot] = await take(limiter, 1)
    async with waiting(limiter, 3) as (queued, granted, last):
        queued.cancel()
        await settle()
        assert limiter.state().waiting == 2
        limiter.release(slot, "other")
        assert not granted.done()  # it has the slot, but has not resumed yet
        granted.cancel()
        await settle()
        assert granted.cancelled()
        assert last.done()
        limiter.release(last.result(), "other")
    assert limiter.is_idle()


async def test_closed_loops_are_skipped() -> None:
    """A waiter whose loop was closed does not keep a slot."""
    limiter = Limiter("m", cap=1)
    [slot] = await take(limiter, 1)
    other = asyncio.new_event_loop()

    def start() -> asyncio.Task[Slot]:
        async def body() -> asyncio.Task[Slot]:
            task = asyncio.create_task(limiter.acquire("gone"))
            await settle()
            return task

        task = other.run_until_complete(body())
        other.close()
        return task

    forgotten = await asyncio.to_thread(start)
    forgotten._log_destroy_pending = False  # type: ignore[attr-defined] - asyncio is right to complain, and it is what is tested
    async with waiting(limiter, 1, "here") as tasks:
        limiter.release(slot, "other")
        await settle()
        give(limiter, got(tasks), "other")
        assert len(got(tasks)) == 1
    assert limiter.is_idle()


async def test_a_slot_released_while_the_lock_is_held() -> None:
    """A slot that the garbage collector releases while the limiter's lock is held neither deadlocks
    nor is lost.
    """
    limiter = Limiter("m", cap=1)
    [slot] = await take(limiter, 1)
    with limiter._lock:
        limiter.release(slot, "other")
    async with asyncio.timeout(60):
        limiter.release(await limiter.acquire("g"), "other")
    assert limiter.is_idle()


async def test_one_halving_per_round_trip() -> None:
    """However many of the calls in flight are refused, the ceiling is halved once; calls sent later
    can halve it again.
    """
    limiter = Limiter("m", cap=16)
    give(limiter, await take(limiter, 16), "refused")
    assert limiter.state().ceiling == 8
    slots = await take(limiter, 8)
    async with waiting(limiter, 1) as tasks:
        assert not tasks[0].done()
    give(limiter, slots, "refused")
    assert limiter.state().ceiling == 4


async def test_halving_starts_from_the_calls_in_flight() -> None:
    """A refusal sets the ceiling to half of the calls in flight, even if the ceiling was far above
    that.
    """
    limiter = Limiter("m", cap=1000)
    give(limiter, await take(limiter, 20), "refused")
    assert limiter.state().ceiling == 10


async def test_the_floor_is_one() -> None:
    """The ceiling never falls below one call."""
    limiter = Limiter("m", cap=4)
    for _ in range(10):
        give(limiter, await take(limiter, 1), "refused")
    assert limiter.state().ceiling == 1


async def test_answers_raise_the_ceiling_by_one_up_to_the_cap() -> None:
    """Each answer raises the ceiling by one, up to the cap; other outcomes do not change it."""
    limiter = Limiter("m", cap=8)
    give(limiter, await take(limiter, 8), "refused")
    limiter._refusals = 0.0
    seen = []
    for verdict in ("answered", "other", "answered", "answered", "answered", "answered"):
        give(limiter, await take(limiter, 1), verdict)  # type: ignore[arg-type]
        seen.append(limiter.state().ceiling)
    assert seen == [5, 5, 6, 7, 8, 8]


async def test_frequent_refusals_slow_the_rise() -> None:
    """If refusals are frequent, a round trip of answers raises the ceiling by one only."""
    limiter = Limiter("m", cap=64)
    for _ in range(3):
        give(limiter, await take(limiter, limiter.state().ceiling), "refused")
    assert limiter.state().ceiling == 8
    give(limiter, await take(limiter, 8), "answered")
    assert 8 <= limiter.state().ceiling <= 9
    for _ in range(100):
        give(limiter, await take(limiter, 1), "answered")
    assert limiter.state().ceiling > 50


async def paced(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch, *phases: tuple[int, float, int]
) -> list[list[int]]:
    """The ceiling after each answer. A phase has the number of calls in flight, the seconds between
    answers, and the number of answers.
    """
    clock = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    ceilings: list[list[int]] = []
    slots: list[Slot] = []
    for calls, interval, answers in phases:
        ceilings.append([])
        for _ in range(answers):
            slots += await take(limiter, max(0, min(calls, limiter.state().ceiling) - len(slots)))
            clock += interval
            give(limiter, [slots.pop(0)], "answered")
            ceilings[-1].append(limiter.state().ceiling)
    monkeypatch.undo()
    return ceilings


async def test_more_calls_that_only_take_longer_halve_the_ceiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More concurrent calls without more answers per second count like a refusal; slow answers do
    not raise the ceiling.
    """
    few, many = await paced(Limiter("m", cap=20), monkeypatch, (5, 0.025, 30), (20, 0.025, 60))
    assert set(few) == {20}
    assert many[-1] <= 12
    assert 5 <= min(many) <= 10


@pytest.mark.parametrize("calls", [20, 50])
async def test_slower_calls_after_quick_ones_are_not_overload(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """A batch of calls that take two hundred times as long keeps at least the concurrency of the
    quick ones.
    """
    limiter = Limiter("m", cap=100)
    quick, slow = await paced(
        limiter, monkeypatch, (20, 0.005 / 20, 1_000), (calls, 1.0 / calls, 300)
    )
    assert set(quick + slow) == {100}


async def test_an_overload_in_the_first_window_is_detected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the calls of a first batch of a hundred wait for each other, the ceiling is halved at the
    end of the first window.
    """
    clock = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    limiter = Limiter("m", cap=1_000)
    slots = await take(limiter, 100)
    ceilings = []
    for slot in slots:  # one after another, like a provider that serves one call at a time
        clock += 0.05
        give(limiter, [slot], "answered")
        ceilings.append(limiter.state().ceiling)
    monkeypatch.undo()
    assert set(ceilings[:40]) == {1_000}
    assert ceilings[-1] <= 50


async def test_a_pause_holds_for_all() -> None:
    """After a Retry-After, neither current nor new waiters get a slot before its time; then all
    do.
    """
    limiter = Limiter("m", cap=4)
    slots = await take(limiter, 4)
    async with waiting(limiter, 1) as early:
        begun = time.monotonic()
        give(limiter, slots, "refused", retry_after=0.2)
        async with waiting(limiter, 1) as late:
            async with asyncio.timeout(60):
                for slot in (await early[0], await late[0]):
                    assert slot.since >= begun + 0.2
                    limiter.release(slot, "other")
    assert limiter.state().paused_until is None
    assert limiter.is_idle()


async def test_a_pause_that_begins_after_the_slot_was_granted() -> None:
    """A pause also holds for a task that was granted a slot but has not started its call."""
    limiter = Limiter("m", cap=2)
    slots = await take(limiter, 2)
    async with waiting(limiter, 1) as [task]:
        limiter.release(slots[0], "answered")
        begun = time.monotonic()
        limiter.release(slots[1], "refused", retry_after=0.1)
        async with asyncio.timeout(60):
            slot = await task
        assert time.monotonic() >= begun + 0.1
        limiter.release(slot, "other")
    assert limiter.is_idle()


def test_a_pause_holds_on_every_loop() -> None:
    """A pause reported on one thread's loop holds on another's, and ends there too."""
    limiter = Limiter("m", cap=2)
    released = threading.Event()

    async def refused() -> float:
        slot = await limiter.acquire("a")
        limiter.release(slot, "refused", retry_after=0.2)
        return time.monotonic()

    async def asks() -> float:
        released.wait(60)
        async with asyncio.timeout(60):
            slot = await limiter.acquire("b")
        limiter.release(slot, "answered")
        return time.monotonic()

    times: list[float] = []
    thread = threading.Thread(target=lambda: times.append(asyncio.run(asks())))
    thread.start()
    begun = asyncio.run(refused())
    released.set()
    thread.join()
    assert times[0] - begun >= 0.19


async def test_a_pause_beyond_patience_is_an_error() -> None:
    """A task that would have to wait longer than its patience gets an error at once, even if it is
    already waiting.
    """
    limiter = Limiter("m", cap=1)
    [slot] = await take(limiter, 1)
    waits = asyncio.create_task(limiter.acquire("g", patience=10))
    await settle()
    limiter.release(slot, "refused", retry_after=3600)
    with pytest.raises(ModelError, match="asked to wait 3600 s") as caught:
        await waits
    assert caught.value.type == "rate_limit"
    assert not caught.value.retryable
    with pytest.raises(ModelError):
        await limiter.acquire("g", patience=10)
    assert limiter.is_idle()


async def test_a_small_group_is_not_held_up_by_a_large_one() -> None:
    """Ten calls that arrive while a thousand wait are done within three round trips, including the
    wait for the first free slot.
    """
    limiter = Limiter("m", cap=10)
    async with waiting(limiter, 1000, "large") as large:
        in_flight = got(large)
        async with waiting(limiter, 10, "small") as small:
            trips = 1
            while len(got(small)) < 10:
                before = len(got(large)), len(got(small))
                give(limiter, in_flight, "other")
                await settle()
                in_flight = got(large)[before[0] :] + got(small)[before[1] :]
                assert len(in_flight) == 10
                trips += 1
            assert trips <= 3
            give(limiter, in_flight, "other")
            await settle()


async def test_groups_take_turns() -> None:
    """Groups with equally many slots get further slots in turn."""
    limiter = Limiter("m", cap=1)
    [slot] = await take(limiter, 1, "other")
    order = []

    async def call(group: str) -> None:
        slot = await limiter.acquire(group)
        order.append(group)
        limiter.release(slot, "other")

    calls = [asyncio.create_task(call(group)) for group in "aaabbbccc"]
    await settle()
    limiter.release(slot, "other")
    await asyncio.gather(*calls)
    assert "".join(order) == "abcabcabc"


async def test_slots_on_a_blocked_loop_do_not_count() -> None:
    """A synchronous call inside a running loop gets a slot although tasks of that loop hold all
    slots; otherwise both would wait forever.
    """
    limiter = Limiter("m", cap=1)
    [slot] = await take(limiter, 1)

    async def call() -> None:
        async with asyncio.timeout(60):
            limiter.release(await limiter.acquire("sync"), "answered")

    portal().run(call())
    limiter.release(slot, "other")
    assert limiter.is_idle()


async def test_the_version_changes_with_the_state() -> None:
    """Changes of the ceiling and of pauses change the version; granting and releasing slots does
    not.
    """
    limiter = Limiter("m", cap=8)
    give(limiter, await take(limiter, 8), "answered")
    assert limiter.version == 0
    give(limiter, await take(limiter, 8), "refused")
    halved = limiter.version
    assert halved > 0
    give(limiter, await take(limiter, 1), "refused", retry_after=0.001)
    assert limiter.version > halved


@dataclass
class Plain:
    """A model that shares its limits with no other; neither hashable nor slotted."""

    name: str = "plain"
    context_window: int | None = None

    async def complete(self, request: Request) -> Completion:
        return Completion("")


@dataclass
class Keyed(Plain):
    limit_key: str = "key"


@dataclass(slots=True)
class Slotted:
    """A model that cannot be weakly referenced."""

    name: str = "slotted"
    context_window: int | None = None

    async def complete(self, request: Request) -> Completion:
        return Completion("")


def test_one_limiter_for_each_key_or_object() -> None:
    """Models with the same `limit_key` share a limiter; a model without a key has its own, even if
    it equals another.
    """
    assert limiter_of(Keyed()) is limiter_of(Keyed("other name"))
    assert limiter_of(Keyed(limit_key="another")) is not limiter_of(Keyed())
    one, other = Plain(), Plain()
    assert limiter_of(one) is limiter_of(one)
    assert limiter_of(one) is not limiter_of(other)
    slotted = Slotted()
    assert limiter_of(slotted) is limiter_of(slotted)
    assert limiter_of(one).state().ceiling == MAX_IN_FLIGHT


def test_limiters_of_collected_models_are_dropped() -> None:
    """The limiter of a collected model is dropped; of those kept by key, the least recently used
    are dropped when there are many.
    """
    model = Plain()
    reference = weakref.ref(limiter_of(model))
    del model
    gc.collect()
    assert reference() is None
    first = weakref.ref(limiter_of(Keyed(limit_key="first")))
    for number in range(module.MAX_IDLE_LIMITERS + 10):
        limiter_of(Keyed(limit_key=f"key {number}"))
        limiter_of(Slotted())
    assert first() is None


async def test_a_limiter_in_use_is_kept() -> None:
    """A limiter with a call in flight is kept, however many others are created."""
    busy = limiter_of(Keyed(limit_key="busy"))
    slot = await busy.acquire("g")
    for number in range(module.MAX_IDLE_LIMITERS + 10):
        limiter_of(Keyed(limit_key=f"key {number}"))
    assert limiter_of(Keyed(limit_key="busy")) is busy
    busy.release(slot, "other")
