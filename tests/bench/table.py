"""Rows of figures with their goals."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    Attributes:
        what: The subject, such as "trivial block".
        figure: The measurement: the median of at least five, unless `what` says otherwise.
        goal: The limit, or None for a figure without a goal.
        unit: "ms", "s", "x" and the like.
        at_least: Whether the goal is a lower bound.
    """

    what: str
    figure: float
    goal: float | None
    unit: str
    at_least: bool = False

    @property
    def missed(self) -> bool:
        if self.goal is None:
            return False
        return self.figure < self.goal if self.at_least else self.figure > self.goal


def median(measure: Callable[[], float], times: int = 5) -> float:
    """The median of several measurements."""
    return statistics.median(measure() for _ in range(times))


def show(title: str, rows: Iterable[Row]) -> bool:
    """Print the rows; whether all goals were met."""
    print(f"\n{title}")
    met = True
    for row in rows:
        bound = (
            "" if row.goal is None else f"{'>=' if row.at_least else '<='} {row.goal:g} {row.unit}"
        )
        print(
            f"  {row.what:<68} {row.figure:>12.4g} {row.unit:<5} {bound:<16} {'MISSED' if row.missed else ''}".rstrip()
        )
        met = met and not row.missed
    return met
