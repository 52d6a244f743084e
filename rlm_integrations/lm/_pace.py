"""Tells from response times alone whether a provider is overloaded."""

LEAST = 8  # answers in a window
SLOW = 2.0  # times the usual seconds
LEAST_RISE = 0.1  # seconds: less may be this machine's own doing
GAIN = 1.1  # times the usual answers a second: less is no gain
WORTH = 1 / 3  # with ten times the calls, less than ten to this power, about twice the answers, is no gain either
FEWER = 0.8  # times the calls at once: more are about as many


class Pace:
    """Watches for the point from which more calls at once only make each of them slower.

    Answers are counted in windows of about one round trip. The seconds that calls were in flight, all together, by the answers of a window
    are what one answer takes: unlike a mean of the answers' own times this is not biased towards the quick ones at the start, and a hanging
    call weighs little.

    Slow answers alone prove nothing: prompts differ, and a provider that batches gives more answers in all while each takes longer. So a
    window is an overload where about as many calls at once as usual, or more, took much longer and brought no more answers a second. If
    fewer at once then bring no relief, it was the prompts, and the new times become the usual ones.
    """

    __slots__ = ("_answers", "_at", "_busy", "_flight", "_tried", "_usual")

    def __init__(self) -> None:
        self._at = 0.0
        self._answers = 0
        self._flight = 0.0  # seconds in flight of all calls in this window
        self._busy = 0.0  # seconds of this window in which any was
        self._usual: tuple[float, float] | None = None  # calls at once, seconds each: the window with the most answers a second
        self._tried: tuple[float, float] | None = None  # the same of the last window, where that was an overload

    def passed(self, now: float, calls: int) -> None:
        """Take note that so many calls have been in flight since this was told last."""
        if calls:
            self._flight += calls * (now - self._at)
            self._busy += now - self._at
        self._at = now

    def is_slow(self, seconds: float) -> bool:
        """Whether an answer that took so long took much longer than usual."""
        return self._usual is not None and seconds > max(SLOW * self._usual[1], self._usual[1] + LEAST_RISE)

    def answered(self, calls: int) -> bool:
        """Take note of an answer, while so many calls were in flight; True where a window ends in overload."""
        self._answers += 1
        if self._answers < max(LEAST, calls) or not self._busy:
            return False
        calls_at_once, seconds = self._flight / self._busy, self._flight / self._answers
        self._answers, self._flight, self._busy = 0, 0.0, 0.0
        overload = self._is_overload(calls_at_once, seconds)
        self._tried = (calls_at_once, seconds) if overload else None
        return overload

    def _is_overload(self, calls: float, seconds: float) -> bool:
        if self._usual is None:
            self._usual = (calls, seconds)
            return False
        slow = self.is_slow(seconds)
        more = max(GAIN, (calls / self._usual[0]) ** WORTH)
        gain = calls / seconds > more * self._usual[0] / self._usual[1]
        if self._tried is None:
            other_prompts = slow and calls < FEWER * self._usual[0]
        else:  # relief would be about as many seconds less as there were calls less
            fewer = calls / self._tried[0]
            other_prompts = fewer < FEWER and seconds / self._tried[1] > (1 + fewer) / 2
        if gain or other_prompts:
            self._usual = (calls, seconds)
            return False
        return slow
