"""Overload from response times: canned windows, judged by hand."""

import heapq
import random
from collections.abc import Callable

from rlm_integrations.lm._pace import MIN_ANSWERS, Pace


class Provider:
    """Feeds a `Pace` what a limiter would tell it, on a clock of its own."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.now = 0.0

    def answers(self, seconds: float, calls: int, count: int) -> list[bool]:
        """So many calls are always in flight, and each takes so long; what is said of each answer."""
        said = []
        for _ in range(count):
            self.now += seconds / calls
            self.pace.passed(self.now, calls)
            said.append(self.pace.answered(calls))
        return said

    def window(self, seconds: float, calls: int) -> bool:
        """A full window; whether it ends in overload."""
        return self.answers(seconds, calls, max(MIN_ANSWERS, calls))[-1]


def test_steady_answers_are_no_overload() -> None:
    """The same times, or times within a factor of two, mean nothing."""
    provider = Provider()
    assert not any(provider.window(seconds, 20) for seconds in (0.5, 0.5, 0.9, 0.3, 0.55))


def test_more_calls_that_take_longer_without_gain_are_overload() -> None:
    """Twice as many calls at once, each twice as slow and more: once per window, not once per
    answer.
    """
    provider = Provider()
    assert not provider.window(0.5, 10)
    assert provider.answers(1.1, 20, 20) == [False] * 19 + [True]


def test_as_many_calls_that_take_longer_are_other_prompts() -> None:
    """As many calls at once as before, each much slower: more calls cannot have brought that about."""
    provider = Provider()
    assert not provider.window(0.05, 20)
    assert not any(provider.answers(0.5, 20, 40))


def test_answers_at_a_fraction_of_the_pace_are_other_prompts() -> None:
    """Five times as many calls, each two hundred times as slow: a provider that has only so many
    hands would not get slower than that.
    """
    provider = Provider()
    provider.window(0.005, 20)
    assert not any(provider.window(1.0, 100) for _ in range(3))


def test_hardly_any_gain_is_overload() -> None:
    """Ten times as many at once, for half as many answers more, is not worth the wait."""
    provider = Provider()
    provider.window(0.5, 10)
    assert provider.window(3.3, 100)


def test_more_calls_that_bring_no_more_answers_are_overload() -> None:
    """Ten times as many at once, each ten times slower: the provider has only so many hands."""
    provider = Provider()
    provider.window(0.05, 10)
    assert provider.window(0.5, 100)


def test_slower_with_gain_is_no_overload() -> None:
    """A provider that batches takes longer for each and gives more in all: that is what concurrency
    is for.
    """
    provider = Provider()
    provider.window(1.0, 10)
    assert not provider.window(2.5, 50)
    assert not provider.window(4.0, 100)


def test_overload_goes_on_until_it_helps() -> None:
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
    """Where fewer calls at once are as slow as many, it was the prompts: one false alarm, then
    never again.
    """
    provider = Provider()
    provider.window(0.5, 20)
    assert provider.window(1.1, 40)
    assert not any(provider.window(1.1, 20) for _ in range(10))
    assert not provider.window(1.2, 40)


def test_few_slow_calls_after_many_quick_ones_are_other_prompts() -> None:
    """One slow call at a time after a quick batch cannot be an overload of our making."""
    provider = Provider()
    provider.window(0.1, 40)
    assert not provider.window(5.0, 1)
    assert not provider.pace.is_slow(5.0)


def test_one_hanging_call_weighs_little() -> None:
    """A call that never ends adds its own seconds to those of many, and makes no window slow."""
    provider = Provider()
    provider.window(0.1, 20)
    for _ in range(20):  # nineteen go on as before, one hangs
        provider.now += 0.1 / 19
        provider.pace.passed(provider.now, 20)
        assert not provider.pace.answered(20)


def test_mixed_prompts_do_not_look_like_overload() -> None:
    """Where answers take from a tenth of a second to ten, the quick ones come first at the start;
    that is not taken for the usual time.
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
    """An hour in which nothing was asked makes no window slow."""
    provider = Provider()
    provider.window(0.1, 20)
    provider.answers(0.1, 20, 10)
    provider.now += 3600
    provider.pace.passed(provider.now, 0)
    assert not any(provider.answers(0.1, 20, 40))


def test_slow_answers() -> None:
    """Slow is what takes more than twice the usual time, once there is a usual time, and a tenth of
    a second more at least.
    """
    provider = Provider()
    assert not provider.pace.is_slow(1e9)
    provider.window(0.5, 8)
    assert provider.pace.is_slow(1.01)
    assert not provider.pace.is_slow(0.99)
    provider.window(0.01, 8)
    assert provider.pace.is_slow(0.12)
    assert not provider.pace.is_slow(0.1)


def ends_in_overload(seconds_of: Callable[[int], float], calls: int) -> bool:
    """Whether a first window does, whose calls began at once: the first beside none, the last
    beside all.
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
    """Answers one after another, or slower the more there are; not answers that take as long beside
    many as beside few.
    """
    assert ends_in_overload(lambda beside: 0.05 * beside, 100)
    assert ends_in_overload(lambda beside: 0.1 * max(1.0, beside / 10), 60)
    assert not ends_in_overload(lambda beside: 0.5 + beside / 1_000, 100)
    assert not ends_in_overload(lambda beside: 0.001 * beside, 60), (
        "a few milliseconds may be this machine's own doing"
    )
    assert not ends_in_overload(lambda beside: 0.05 * beside, 20), "too few calls to tell"


def test_mixed_prompts_in_a_first_window_are_no_overload() -> None:
    """Where answers take from a tenth of a second to ten, whatever began beside them, hardly any
    first window is taken for an overload.
    """
    chance = random.Random(2)
    alarms = sum(ends_in_overload(lambda _: chance.lognormvariate(0, 1), 100) for _ in range(200))
    assert alarms <= 4
