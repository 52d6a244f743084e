"""Long work that code in a sandbox asks the host for: how much it may read, and whether its result
is still wanted.

Whoever reads many characters says so with `spend`, a step at a time. Without a `Work` around it,
that costs nothing and stops nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rlm_integrations.errors import InputError


class WorkSpentError(InputError):
    """A query would read more than it may; the message says how much that is."""


class WorkStoppedError(Exception):
    """Nobody waits for the result any more."""


class Work:
    """What one piece of work may read.

    Args:
        most: How many characters; None for no bound.
        until: The time of `time.monotonic()` at which it ends; None for no end.

    Attributes:
        spent: How many characters it has read so far.
    """

    def __init__(self, most: int | None = None, until: float | None = None) -> None:
        self.spent = 0
        self._most = most
        self._until = until
        self._stopped = False

    def stop(self) -> None:
        """End the work at its next step; callable from any thread."""
        self._stopped = True

    def spend(self, characters: int) -> None:
        """Count characters that are about to be read.

        Raises:
            WorkStoppedError: The work was stopped.
            WorkSpentError: It may not read so much, or not for so long.
        """
        self.spent += characters
        if self._stopped:
            raise WorkStoppedError
        if self._most is not None and self.spent > self._most:
            raise WorkSpentError(
                f"this would read more than {self._most:,} characters at once: ask for less, or in several queries"
            )
        if self._until is not None and time.monotonic() >= self._until:
            raise WorkSpentError("the run's time is over")

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """What `spend` counts inside of this `with`, in this thread or task, counts for this work."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Work | None] = ContextVar("work", default=None)


def spend(characters: int) -> None:
    """Count characters for the work that is under way here, if any; see `Work.spend`."""
    work = _current.get()
    if work is not None:
        work.spend(characters)
