"""Copies of immutable objects that share what they hold, such as clients."""

from typing import Any, Self


class SharedCopies:
    """An object whose copies are the object itself: it is immutable, and its clients are best
    shared.
    """

    __slots__ = ()

    def __copy__(self) -> Self:
        """The same object."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same object."""
        return self
