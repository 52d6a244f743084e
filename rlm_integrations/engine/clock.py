"""The clock of a run, which may be resumed in another process."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunClock:
    """Measures seconds since the run began. `time.monotonic()` is not valid in another process.

    Attributes:
        started: When the run began, in seconds since 1970.
        begun: The same moment in seconds of this process's `time.monotonic()`.
    """

    started: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.monotonic)

    def since(self, at: float) -> float:
        """A time of `time.monotonic()` as seconds since the run began."""
        return max(0.0, at - self.begun)

    def at(self, seconds: float) -> float:
        """Seconds since the run began as a time of `time.monotonic()`."""
        return self.begun + seconds

    def now(self) -> float:
        """Seconds since the run began, now."""
        return self.since(time.monotonic())
