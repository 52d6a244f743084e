"""Detects an overloaded provider from response times alone."""

MIN_ANSWERS = 8  # answers in a window
SLOW_FACTOR = 2.0  # times the usual seconds
MIN_RISE_SECONDS = 0.1  # seconds: a smaller rise may be caused by this machine
MIN_GAIN = 1.1  # times the usual answers a second: a smaller factor is not a gain
# With ten times the calls, fewer than ten to this power (about twice the answers) is not a gain
GAIN_EXPONENT = 1 / 3
FEWER_CALLS = 0.8  # times the calls at once: more are about as many
MORE_CALLS = 1.25  # times the calls at once: fewer are about as many
# Of the usual answers a second: more calls alone do not cause a fall below this
FALL = 1 / 3
FIRST_RISE = (
    2.2  # times the seconds: calls that began among many compared with those that began among few
)
MIN_CALLS_PER_SIDE = 16  # calls on either side of that comparison at least


class Pace:
    """Finds the point beyond which more concurrent calls only make each of them slower.

    Answers are counted in windows of about one round trip. The time per answer is the sum of the
    seconds that calls were in flight, divided by the answers of the window: unlike the mean of the
    answers' own times it is not biased towards quick answers at the start, and a hanging call
    weighs little.

    Slow answers alone prove nothing: prompts differ, and a provider that batches gives more answers
    in all while each takes longer. So a window counts as an overload if clearly more concurrent
    calls than usual took much longer and gave no more answers a second. If no more calls than usual
    take longer, or answers arrive at a third of the usual rate, the prompts are the cause, and the
    new times become the usual ones; the same applies if fewer concurrent calls bring no relief.

    The first window has no usual values to compare with. In it, calls that began among many others
    are compared with those that began among few, at the start of the same batch: if they took much
    longer, the provider made them wait for each other.
    """

    __slots__ = ("_answers", "_at", "_busy", "_first", "_flight", "_tried", "_usual")

    def __init__(self) -> None:
        self._at = 0.0
        self._answers = 0
        self._flight = 0.0  # seconds in flight of all calls in this window
        self._busy = 0.0  # seconds of this window in which any was
        # Calls at once, seconds each: the window with the most answers a second
        self._usual: tuple[float, float] | None = None
        # Of the first window's calls: how many were given out when each began, its seconds
        self._first: list[tuple[int, float]] = []
        # The same of the last window, if that was an overload
        self._tried: tuple[float, float] | None = None

    def passed(self, now: float, calls: int) -> None:
        """Note that so many calls have been in flight since the last call of this method."""
        if calls:
            self._flight += calls * (now - self._at)
            self._busy += now - self._at
        self._at = now

    def is_slow(self, seconds: float) -> bool:
        """Whether an answer with this duration took much longer than usual."""
        return self._usual is not None and seconds > max(
            SLOW_FACTOR * self._usual[1], self._usual[1] + MIN_RISE_SECONDS
        )

    def answered(self, calls: int, *, beside: int = 0, seconds: float = 0.0) -> bool:
        """Note an answer; True if it ends a window in overload.

        Args:
            calls: How many calls were in flight.
            beside: How many were, this one included, when it began; 0 if unknown.
            seconds: How long it took.
        """
        if self._usual is None and beside:
            self._first.append((beside, seconds))
        self._answers += 1
        if self._answers < max(MIN_ANSWERS, calls) or not self._busy:
            return False
        calls_at_once, seconds = self._flight / self._busy, self._flight / self._answers
        self._answers, self._flight, self._busy = 0, 0.0, 0.0
        overload = self._is_overload(calls_at_once, seconds)
        self._tried = (calls_at_once, seconds) if overload else None
        return overload

    def _is_overload(self, calls: float, seconds: float) -> bool:
        if self._usual is None:
            self._usual = self._unhurried() or (calls, seconds)
            self._first.clear()
            return self._usual != (calls, seconds)
        slow = self.is_slow(seconds)
        more = max(MIN_GAIN, (calls / self._usual[0]) ** GAIN_EXPONENT)
        gain = calls / seconds > more * self._usual[0] / self._usual[1]
        if self._tried is None:
            pace = (calls / seconds) / (self._usual[0] / self._usual[1])
            other_prompts = slow and (calls < MORE_CALLS * self._usual[0] or pace < FALL)
        else:  # relief would be about as many seconds less as there were calls less
            fewer = calls / self._tried[0]
            other_prompts = fewer < FEWER_CALLS and seconds / self._tried[1] > (1 + fewer) / 2
        if gain or other_prompts:
            self._usual = (calls, seconds)
            return False
        return slow

    def _unhurried(self) -> tuple[float, float] | None:
        """The number of concurrent calls and the seconds per call of calls that began among few
        others; None unless those among many took much longer.
        """
        half = max((beside for beside, _ in self._first), default=0) / 2
        few = [each for each in self._first if each[0] <= half]
        many = [seconds for beside, seconds in self._first if beside > half]
        if min(len(few), len(many)) < MIN_CALLS_PER_SIDE:
            return None
        seconds = sum(each for _, each in few) / len(few)
        rise = sum(many) / len(many) - seconds
        if rise < max((FIRST_RISE - 1) * seconds, MIN_RISE_SECONDS):
            return None
        return sum(beside for beside, _ in few) / len(few), seconds
