"""What the stand-in saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start or the last reset.

    Attributes:
        calls: Chat completions asked, on whichever wire, whatever became of them.
        in_flight: Those read in full and not answered yet.
        most_in_flight: The most there were at once.
        aborted: Those whose client went away before their answer was complete.
        bytes_in: Bytes received, heads included.
        bytes_out: Bytes sent, heads included.
        connections: Connections opened.
    """

    calls: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    aborted: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0


@dataclass(slots=True)
class Call:
    """One chat completion.

    Attributes:
        number: Its place in the order of arrival, from 0.
        model: The name that was asked for.
        arrived: When it was read in full, in seconds of `time.monotonic()`.
        ended: When the last byte of its answer was written or its client went away; None while it
            is open.
        status: The HTTP status sent, or None where there was none.
        fault: The kind of fault that met it, if any.
        aborted: Whether its client went away first.
        stream: Whether it asked for a stream.
    """

    number: int
    model: str
    arrived: float
    ended: float | None = None
    status: int | None = None
    fault: str | None = None
    aborted: bool = False
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A request as it came, in the words of its own wire; header names are lower-case."""

    number: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    path: str
