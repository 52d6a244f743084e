"""Overload detected from response times: prepared windows with known verdicts."""

import heapq
import random
from collections.abc import Callable

from rlm_integrations.lm._pace import MIN_ANSWERS, Pace


class Provider:
    """Feeds a `Pace` the same data as a limiter, with its own clock."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.now = 0.0

    def answers(self, seconds: float, calls: int, count: int) -> list[bool]:
        """The verdict on each answer while this many calls are always in flight and each takes this
        long.
        """
        said = []
        for _ in range(count):
            self.now += seconds / calls
            self.pace.passed(self.now, calls)
            said.append(self.pace.answered(calls))
        return said

    def window(self, seconds: float, calls: int) -> bool:
        """Whether one full window ends in overload."""
        return self.answers(seconds, calls, max(MIN_ANSWERS, calls))[-1]


def test_steady_answers_are_not_overload() -> None:
    """Equal times, or times within a factor of two, are not an overload."""
    provider = Provider()
    assert not any(provider.window(seconds, 20) for seconds in (0.5, 0.5, 0.9, 0.3, 0.55))


def test_more_calls_that_take_longer_without_gain_are_overload() -> None:
    """Twice as many concurrent calls, each more than twice as slow, are an overload, once per
    window and not once per answer.
    """
    provider = Provider()
    assert not provider.window(0.5, 10)
    assert provider.answers(1.1, 20, 20) == [False] * 19 + [True]


def test_as_many_calls_that_take_longer_are_other_prompts() -> None:
    """If the same number of concurrent calls becomes much slower, the prompts are the cause."""
    provider = Provider()
    assert not provider.window(0.05, 20)
    assert not any(provider.answers(0.5, 20, 40))


def test_answers_at_a_fraction_of_the_pace_are_other_prompts() -> None:
    """If five times as many calls are each two hundred times as slow, the prompts are the cause: a
    provider at its capacity would not slow down that much.
    """
    provider = Provider()
    provider.window(0.005, 20)
    assert not any(provider.window(1.0, 100) for _ in range(3))


def test_hardly_any_gain_is_overload() -> None:
    """Ten times as many concurrent calls for half as many more answers are an overload."""
    provider = Provider()
    provider.window(0.5, 10)
    assert provider.window(3.3, 100)


def test_more_calls_that_bring_no_more_answers_are_overload() -> None:
    """Ten times as many concurrent calls, each ten times slower, are an overload: the provider is
    at its capacity.
    """
    provider = Provider()
    provider.window(0.05, 10)
    assert provider.window(0.5, 100)


def test_slower_with_gain_is_not_overload() -> None:
    """Slower calls with more answers in total, as from a provider that batches, are not an
    overload.
    """
    provider = Provider()
    provider.window(1.0, 10)
    assert not provider.window(2.5, 50)
    assert not provider.window(4.0, 100)


def test_overload_lasts_until_times_recover() -> None:
    """Windows stay overloaded until the times are near the usual ones again."""
    provider = Provider()
    provider.window(0.5, 10)
    assert [provider.window(calls / 20, calls) for calls in (100, 50, 25, 12)] == [
        True,
        True,
        True,
        False,
    ]


def test_longer_prompts_become_the_usual() -> None:
    """If fewer concurrent calls are as slow as many, the prompts are the cause: one false alarm,
    then none.
    """
    provider = Provider()
    provider.window(0.5, 20)
    assert provider.window(1.1, 40)
    assert not any(provider.window(1.1, 20) for _ in range(10))
    assert not provider.window(1.2, 40)


def test_few_slow_calls_after_many_quick_ones_are_other_prompts() -> None:
    """Single slow calls after a quick batch are not an overload."""
    provider = Provider()
    provider.window(0.1, 40)
    assert not provider.window(5.0, 1)
    assert not provider.pace.is_slow(5.0)


def test_one_hanging_call_weighs_little() -> None:
    """A hanging call adds its own seconds to those of many calls, and makes no window slow."""
    provider = Provider()
    provider.window(0.1, 20)
    for _ in range(20):  # nineteen continue as before, one hangs
        provider.now += 0.1 / 19
        provider.pace.passed(provider.now, 20)
        assert not provider.pace.answered(20)


def test_mixed_prompts_do_not_look_like_overload() -> None:
    """If answers take from a tenth of a second to ten, the quick ones that arrive first do not
    define the usual time.
    """
    chance = random.Random(1)
    provider = Provider()
    ends = [chance.lognormvariate(0, 1) for _ in range(50)]
    alarms = 0
    for _ in range(3000):
        heapq.heapify(ends)
        provider.now = heapq.heappop(ends)
        provider.pace.passed(provider.now, 50)
        alarms += provider.pace.answered(50)
        heapq.heappush(ends, provider.now + chance.lognormvariate(0, 1))
    assert alarms == 0


def test_idle_time_does_not_count() -> None:
    """An hour without calls makes no window slow."""
    provider = Provider()
    provider.window(0.1, 20)
    provider.answers(0.1, 20, 10)
    provider.now += 3600
    provider.pace.passed(provider.now, 0)
    assert not any(provider.answers(0.1, 20, 40))


def test_slow_answers() -> None:
    """A slow answer takes more than twice the usual time, and at least a tenth of a second more."""
    provider = Provider()
    assert not provider.pace.is_slow(1e9)
    provider.window(0.5, 8)
    assert provider.pace.is_slow(1.01)
    assert not provider.pace.is_slow(0.99)
    provider.window(0.01, 8)
    assert provider.pace.is_slow(0.12)
    assert not provider.pace.is_slow(0.1)


def ends_in_overload(seconds_of: Callable[[int], float], calls: int) -> bool:
    """Whether a first window is an overload if its calls all began at once: the first among none,
    the last among all others.
    """
    pace = Pace()
    said = False
    for done, (seconds, beside) in enumerate(
        sorted((seconds_of(beside), beside) for beside in range(1, calls + 1))
    ):
        pace.passed(seconds, calls - done)
        said = pace.answered(calls, beside=beside, seconds=seconds)
    return said


def test_a_first_window_in_which_calls_wait_for_each_other_is_overload() -> None:
    """Answers one after another, or slower the more calls there are, are an overload; answers that
    take equally long among many and few are not.
    """
    assert ends_in_overload(lambda beside: 0.05 * beside, 100)
    assert ends_in_overload(lambda beside: 0.1 * max(1.0, beside / 10), 60)
    assert not ends_in_overload(lambda beside: 0.5 + beside / 1_000, 100)
    assert not ends_in_overload(lambda beside: 0.001 * beside, 60), (
        "a few milliseconds may be this machine's own doing"
    )
    assert not ends_in_overload(lambda beside: 0.05 * beside, 20), "too few calls to tell"


def test_mixed_prompts_in_a_first_window_are_not_overload() -> None:
    """If answers take from a tenth of a second to ten, whatever was in flight with them, hardly any
    first window is an overload.
    """
    chance = random.Random(2)
    alarms = sum(ends_in_overload(lambda _: chance.lognormvariate(0, 1), 100) for _ in range(200))
    assert alarms <= 4
