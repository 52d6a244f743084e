"""What people call the places of a text."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

Unit = Literal["part", "row", "path", "value", "record", "csv record"]
_UNITS: Final = {".csv": "row", ".tsv": "row", ".json": "path"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What people call the places of a text whose lines are not its places.

    Attributes:
        unit: "part": the text was extracted from a document, and has the parts below. "row": it is a
            table in CSV. "path": it is JSON. "value": it is JSON that code gets as an object.
            "record": so, and a list of the rows of a frame. "csv record": a frame in CSV.
        starts: Where each part begins, ascending.
        labels: What is put after the document's name for each part, such as " p. 12" or ":120".
    """

    unit: Unit
    starts: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def is_object(self) -> bool:
        """Whether code gets an object that is made from the text, which is JSON."""
        return self.unit in {"value", "record"}

    @property
    def has_paths(self) -> bool:
        """Whether the text is JSON."""
        return self.unit in {"path", "value", "record"}

    @classmethod
    def of_file(cls, name: str) -> Self | None:
        """The layout of a text file of this name; None for one whose places are lines."""
        unit: Unit | None = _UNITS.get(name.lower()[name.rfind(".") :])  # type: ignore[assignment]
        return None if unit is None else cls(unit)

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Self:
        """The layout that `to_dict` described."""
        return cls(described["unit"], tuple(described["starts"]), tuple(described["labels"]))

    def to_dict(self) -> dict[str, Any]:
        """The layout in JSON's types."""
        return {"unit": self.unit, "starts": list(self.starts), "labels": list(self.labels)}

    def part(self, at: int) -> str:
        """What is put after the document's name for the place of this character; "" for a document
        without parts.
        """
        number = bisect_right(self.starts, at) - 1
        return self.labels[max(number, 0)] if self.labels else ""
