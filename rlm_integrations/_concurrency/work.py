"""Bounds on long work that sandbox code requests from the host: how much it may read, and whether
its result is still needed.

Functions that read many characters call `spend` before each step. Outside of a `Work` the call has
no effect.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rlm_integrations.errors import InputError


class WorkSpentError(InputError):
    """A query would read more than it may; the message has the bound."""


class WorkStoppedError(Exception):
    """The result is no longer needed."""


class Work:
    """The bounds of one piece of work.

    Args:
        most: How many characters it may read; None for no bound.
        until: Its deadline, in `time.monotonic()`; None for no deadline.

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
            WorkSpentError: It may not read so much, or its deadline has passed.
        """
        self.spent += characters
        if self._stopped:
            raise WorkStoppedError
        if self._most is not None and self.spent > self._most:
            raise WorkSpentError(
                f"this would read more than {self._most:,} characters at once: ask for less, "
                "or split the query"
            )
        if self._until is not None and time.monotonic() >= self._until:
            raise WorkSpentError("the run's time is over")

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Inside this `with`, `spend` calls of this thread or task count for this work."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Work | None] = ContextVar("work", default=None)


def spend(characters: int) -> None:
    """Count characters for the current work, if any; see `Work.spend`."""
    work = _current.get()
    if work is not None:
        work.spend(characters)
