"""The records of the stand-in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start or the last reset.

    Attributes:
        calls: Requested chat completions, of any API and with any outcome.
        in_flight: Those read completely and not answered yet.
        most_in_flight: The maximum number in flight.
        aborted: Those whose client disconnected before the answer was complete.
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
        model: The requested name.
        arrived: When it was read completely, in seconds of `time.monotonic()`.
        ended: When the last byte of its answer was written or its client disconnected; None while
            it is open.
        status: The HTTP status sent, or None.
        fault: The kind of its fault, if any.
        aborted: Whether its client disconnected first.
        stream: Whether it requested a stream.
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
    """A received request, in the form of its own API; header names are lower-case."""

    number: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    path: str
