"""Tells from response times alone whether a provider is overloaded."""

import math

LEAST = 8  # answers in a window
RISE = 2.0  # times slower than usual
GAIN = 1.1  # times more answers a second: less is no gain
RELIEF = 0.75  # of the time before; more is no relief


class Pace:
    """Watches for the point from which more calls at once only make each of them slower.

    Answers are looked at in windows of about one round trip: their typical time (geometric mean, so that one hanging call weighs little)
    and how many were in flight beside them, from which follows how many come in a second. Slow answers alone prove nothing: prompts
    differ, and a provider that batches gives more answers in all while each takes longer. So a window counts as overload where at least
    as many calls at once as usual took much longer and brought no more answers a second. If fewer at once bring no relief, it was the
    prompts, and the new times become the usual ones.

    Attributes:
        overloaded: What the last full window said.
    """

    __slots__ = ("_beside", "_count", "_logs", "_tried", "_usual", "overloaded")

    def __init__(self) -> None:
        self.overloaded = False
        self._usual: tuple[float, float] | None = None  # calls at once, seconds each: the window with the most answers a second
        self._tried: float | None = None  # seconds at the last overload, while relief is awaited
        self._count = 0
        self._logs = 0.0
        self._beside = 0

    def answered(self, seconds: float, beside: int) -> bool:
        """Take note of an answer that had so many calls in flight beside it; True where a window ends in overload."""
        self._count += 1
        self._logs += math.log(max(seconds, 1e-6))
        self._beside += beside
        if self._count < max(LEAST, beside):
            return False
        calls, seconds = self._beside / self._count, math.exp(self._logs / self._count)
        self._count, self._logs, self._beside = 0, 0.0, 0
        self.overloaded = self._is_overload(calls, seconds)
        self._tried = seconds if self.overloaded else None
        return self.overloaded

    def _is_overload(self, calls: float, seconds: float) -> bool:
        if self._usual is None:
            self._usual = (calls, seconds)
            return False
        usual_calls, usual_seconds = self._usual
        slower = seconds > RISE * usual_seconds
        no_relief = self._tried is not None and seconds > RELIEF * self._tried
        others = slower and calls < 0.9 * usual_calls and self._tried is None  # fewer calls, much slower: other prompts than before
        if no_relief or others or calls / seconds > GAIN * usual_calls / usual_seconds:
            self._usual = (calls, seconds)
            return False
        return slower
