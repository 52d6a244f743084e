"""Limits the calls of one model in flight to what its provider can handle, across all runs, threads
and event loops.
"""

import asyncio
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rlm_integrations._concurrency.portal import blocked_loops, running_loop
from rlm_integrations._concurrency.runtime import shared
from rlm_integrations.errors import ModelError
from rlm_integrations.events import new_id
from rlm_integrations.lm._pace import Pace
from rlm_integrations.lm.base import LM, RateLimited

MAX_IN_FLIGHT = 1_000  # calls of one model; about as many as file descriptors allow
MAX_IDLE_LIMITERS = 256  # kept while unused
FREQUENT_REFUSALS = 0.15  # share of the last answers above which the ceiling rises slowly
NEWEST_WEIGHT = 1 / 20  # of the newest answer in that share

Verdict = Literal["answered", "refused", "other"]


@dataclass(frozen=True, slots=True)
class LimiterState:
    """The state of a limiter at one moment, with the fields of `events.LimiterChanged`."""

    ceiling: int
    in_use: int
    waiting: int
    paused_until: float | None


class Slot:
    """The right to make one call.

    Attributes:
        group: The run or batch that has it.
        since: When it was granted, in seconds of `time.monotonic()`.
        beside: How many slots were in use then, this one included.
    """

    __slots__ = ("beside", "group", "loop", "since")

    def __init__(self, group: Hashable, loop: asyncio.AbstractEventLoop, beside: int) -> None:
        self.group = group
        self.loop = loop
        self.beside = beside
        self.since = time.monotonic()


class _Waiter:
    """A task that waits for a slot. Its future ends when it has one, or has to check again."""

    __slots__ = ("future", "group", "loop", "slot")

    def __init__(self, group: Hashable, loop: asyncio.AbstractEventLoop) -> None:
        self.group = group
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.slot: Slot | None = None

    def wake(self) -> bool:
        """End the wait, from any thread; False if its loop is closed."""
        if running_loop() is self.loop:
            self._end()
            return True
        try:
            self.loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            return False
        return True

    def _end(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Limiter:
    """Grants slots up to a ceiling that follows the provider's capacity.

    The ceiling starts at `cap`. A refusal (429, 503), or an overload that shows in the response
    times (see `Pace`), sets it to half of the calls in flight, once per round trip. Every answer
    raises it by one, or by one per round trip while refusals are frequent. It never falls below
    one. If a provider says how long to wait, no slot is granted before that.

    Slots go to the waiting group (a run, a batch) that has the fewest, and among equals in turn, so
    that ten prompts need not wait for a thousand.

    Slots held by tasks on a blocked event loop are not counted: they cannot be released until the
    blocking call returns, and that call may need a slot itself (deadlock).
    """

    def __init__(self, name: str, cap: int = MAX_IN_FLIGHT) -> None:
        self.id = new_id("limiter")
        self.name = name
        self.version = 0  # grows with every change of the ceiling or the pause
        self._cap = cap
        self._ceiling = float(cap)
        self._lock = threading.Lock()
        self._slots: set[Slot] = set()
        self._slots_by_group: Counter[Hashable] = Counter()  # slots by group
        # Waiting tasks by group, in turn
        self._queues: dict[Hashable, OrderedDict[_Waiter, None]] = {}
        # Changes that are not applied yet: see `_settle`
        self._unsettled: deque[_Waiter | tuple[Slot, Verdict, float | None] | None] = deque()
        self._pace = Pace()
        self._refusals = 0.0  # their share among the last answers
        self._halved_at = 0.0
        self._paused_until = 0.0

    def state(self) -> LimiterState:
        """The current state. Takes no lock: it may be read wherever a slot is released."""
        waiting = sum(map(len, list(self._queues.values())))
        return LimiterState(
            int(self._ceiling),
            len(self._slots),
            waiting,
            self._paused_until if self._pause() > 0 else None,
        )

    def is_idle(self) -> bool:
        """Whether no slot is in use or waited for."""
        return not self._slots and not self._queues

    async def acquire(self, group: Hashable, *, patience: float = float("inf")) -> Slot:
        """Wait for a slot for this group. Each must be returned with `release`.

        Raises:
            ModelError: The provider asked to wait for longer than `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        while True:
            slot = waiter = None
            with self._lock:
                pause = self._pause()
                if pause <= 0 and not self._queues and self._room() > 0:
                    slot = self._take(group, loop)
                elif pause <= patience:
                    waiter = _Waiter(group, loop)
                    self._queues.setdefault(group, OrderedDict())[waiter] = None
                    # There may be room despite waiting tasks, if a loop is blocked
                    self._unsettled.append(None)
            if self._unsettled:
                self._settle()
            if slot is None and waiter is None:
                message = (
                    f"{self.name}: its provider asked to wait {pause:.0f} s, longer than a call "
                    "is retried"
                )
                raise ModelError(message, type="rate_limit", retry_after=pause)
            if waiter is not None:
                slot = await self._wait(waiter, pause)
            if slot is not None:
                return slot

    async def _wait(self, waiter: _Waiter, pause: float) -> Slot | None:
        # Timers may be a little early
        timer = (
            waiter.loop.call_later(pause + 0.001, self._check_again, context=Context())
            if pause > 0
            else None
        )
        try:
            await waiter.future
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        slot = waiter.slot
        if slot is not None and self._pause() > 0:  # the pause began after the slot was granted
            self.release(slot, "other")
            return None
        return slot

    def release(self, slot: Slot, verdict: Verdict, *, retry_after: float | None = None) -> None:
        """Return a slot, from any thread, with the outcome of the call. A second time has no
        effect.

        Args:
            slot: A slot from `acquire`.
            verdict: "answered" for an answer, "refused" if the provider reported overload, "other"
                for all else.
            retry_after: How many seconds it asked to wait.
        """
        self._unsettled.append((slot, verdict, retry_after))
        self._settle()

    def _leave(self, waiter: _Waiter) -> None:
        self._unsettled.append(waiter)
        self._settle()

    def _check_again(self) -> None:
        self._unsettled.append(None)
        self._settle()

    def _settle(self) -> None:
        """Apply pending changes, and grant free slots.

        This never waits for the lock, because a slot may be released while this thread holds it:
        when the garbage collector closes an unfinished coroutine. The thread that holds the lock
        settles once it has released it.
        """
        while self._unsettled and self._lock.acquire(blocking=False):
            try:
                awake: list[_Waiter] = []
                while self._unsettled:
                    match self._unsettled.popleft():
                        case (slot, verdict, retry_after):
                            awake += self._take_back(slot, verdict, retry_after)
                        case _Waiter() as waiter:
                            self._dismiss(waiter)
                awake += self._grant_free_slots()
            finally:
                self._lock.release()
            for waiter in awake:
                if not waiter.wake():
                    self._unsettled.append(waiter)

    # The methods below run under the lock.

    def _pause(self) -> float:
        return self._paused_until - time.monotonic() if self._paused_until else 0.0

    def _room(self) -> int:
        room = int(self._ceiling) - len(self._slots)
        if room <= 0 and (blocked := blocked_loops()):
            room += sum(slot.loop in blocked for slot in self._slots)
        return room

    def _take(self, group: Hashable, loop: asyncio.AbstractEventLoop) -> Slot:
        slot = Slot(group, loop, len(self._slots) + 1)
        self._pace.passed(slot.since, len(self._slots))
        self._slots.add(slot)
        self._slots_by_group[group] += 1
        return slot

    def _grant_free_slots(self) -> list[_Waiter]:
        awake = []
        while self._queues and self._pause() <= 0 and self._room() > 0:
            group = min(self._queues, key=self._slots_by_group.__getitem__)
            queue = self._queues.pop(group)
            waiter, _ = queue.popitem(last=False)
            if queue:
                self._queues[group] = queue
            waiter.slot = self._take(group, waiter.loop)
            awake.append(waiter)
        return awake

    def _dismiss(self, waiter: _Waiter) -> None:
        queue = self._queues.get(waiter.group)
        if queue and waiter in queue:
            del queue[waiter]
            if not queue:
                del self._queues[waiter.group]
        elif waiter.slot is not None:
            self._take_back(waiter.slot, "other", None)

    def _take_back(self, slot: Slot, verdict: Verdict, retry_after: float | None) -> list[_Waiter]:
        """Release a slot; the waiters that have to check again, because a pause began."""
        if slot not in self._slots:
            return []
        now = time.monotonic()
        beside = max(slot.beside, len(self._slots))
        self._pace.passed(now, len(self._slots))
        self._slots.discard(slot)
        self._slots_by_group[slot.group] -= 1
        if not self._slots_by_group[slot.group]:
            del self._slots_by_group[slot.group]
        if verdict == "answered":
            self._refusals -= self._refusals * NEWEST_WEIGHT
            if self._pace.answered(beside, beside=slot.beside, seconds=now - slot.since):
                self._halve(now, beside)
            elif self._ceiling < self._cap and not self._pace.is_slow(now - slot.since):
                self._set_ceiling(
                    min(
                        self._cap,
                        self._ceiling
                        + (1 if self._refusals <= FREQUENT_REFUSALS else 1 / self._ceiling),
                    )
                )
        elif verdict == "refused":
            self._refusals += (1 - self._refusals) * NEWEST_WEIGHT
            # Not if the call began before the ceiling was halved
            if slot.since > self._halved_at:
                self._halve(now, beside)
            if retry_after:
                return self._begin_pause(now + retry_after)
        return []

    def _halve(self, now: float, beside: int) -> None:
        self._halved_at = now
        self._set_ceiling(max(1.0, min(self._ceiling, beside) // 2))

    def _set_ceiling(self, ceiling: float) -> None:
        self.version += int(ceiling) != int(self._ceiling)
        self._ceiling = ceiling

    def _begin_pause(self, until: float) -> list[_Waiter]:
        if until <= self._paused_until:
            return []
        self._paused_until = until
        self.version += 1
        awake = [waiter for queue in self._queues.values() for waiter in queue]
        self._queues.clear()
        return awake


class _Limiters:
    """All limiters of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: OrderedDict[Hashable, tuple[Limiter, object]] = OrderedDict()
        self._by_object: dict[int, tuple[Limiter, weakref.ref[LM]]] = {}

    def of(self, lm: LM) -> Limiter:
        with self._lock:
            if isinstance(lm, RateLimited):
                return self._keyed(lm.limit_key, lm.name, None)
            if entry := self._by_object.get(id(lm)):
                return entry[0]
            try:
                reference = weakref.ref(lm, partial(_forget, self._by_object, id(lm)))
            # A class with slots and without `__weakref__`: kept as long as its limiter
            except TypeError:
                return self._keyed(("object", id(lm)), lm.name, lm)
            limiter = Limiter(lm.name)
            self._by_object[id(lm)] = limiter, reference
            return limiter

    def _keyed(self, key: Hashable, name: str, kept: object) -> Limiter:
        if key not in self._by_key:
            for old in [old for old, (limiter, _) in self._by_key.items() if limiter.is_idle()][
                : -MAX_IDLE_LIMITERS + 1
            ]:
                del self._by_key[old]
            self._by_key[key] = Limiter(name), kept
        self._by_key.move_to_end(key)
        return self._by_key[key][0]


def _forget(by_object: dict[int, tuple[Limiter, weakref.ref[LM]]], key: int, _: object) -> None:
    by_object.pop(key, None)  # no lock: the garbage collector may call this anywhere


def limiter_of(lm: LM) -> Limiter:
    """The process's limiter of this model: the one of its `limit_key`, which several objects may
    share, or a separate one that lives as long as the model.
    """
    return shared("limiters", _Limiters).of(lm)
