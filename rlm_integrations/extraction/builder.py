"""What the readers of formats produce: text, and what people call its parts."""

from collections.abc import Sequence
from typing import Any, Final

_MAX_RANGES: Final = 50


class UnreadableError(Exception):
    """A document has no text that can be read.

    Args:
        message: What is wrong and what to do, as the rest of a sentence about the document.
        reason: The same in a few words.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class TextBuilder:
    """Collects the text of a document.

    Attributes:
        length: How many characters it has so far.
        starts: Where each part begins.
        labels: What people call each part, such as " p. 12", to be put after the document's name.
        properties: What is known of the document, in JSON's types.
    """

    def __init__(self) -> None:
        self.length = 0
        self.starts: list[int] = []
        self.labels: list[str] = []
        self.properties: dict[str, Any] = {}
        self._parts: list[str] = []

    def begin(self, label: str) -> None:
        """Begin a part. It replaces one that has no text."""
        if self.labels and self.labels[-1] == label:
            return
        if self.starts and self.starts[-1] == self.length:
            self.labels[-1] = label
        else:
            self.starts.append(self.length)
            self.labels.append(label)

    def add(self, text: str) -> None:
        """Add text to the last part."""
        self._parts.append(text)
        self.length += len(text)

    def omit(self, what: str, count: int = 1) -> None:
        """Note that things of this kind are not in the text."""
        if count:
            omitted = self.properties.setdefault("not_included", {})
            omitted[what] = omitted.get(what, 0) + count

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self._parts)


def number_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short, such as "2, 5-9"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [f"{first}-{last}" if last > first else f"{first}" for first, last in ranges]
    return ", ".join([*shown[:_MAX_RANGES], *(["…"] if len(shown) > _MAX_RANGES else [])])
