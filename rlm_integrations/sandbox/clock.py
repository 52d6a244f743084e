"""A clock that begins where it is told, so that a replay sees the run's own time."""

import datetime as dt
import time
from typing import Any


def pin_clock(now: float) -> None:
    """Let `time` and `datetime` of this process begin at `now`, seconds since the epoch, and go on
    from there.
    """
    real_time, real_local, real_utc = time.time, time.localtime, time.gmtime
    offset = now - real_time()
    time.time = lambda: real_time() + offset
    time.time_ns = lambda: int(time.time() * 1e9)
    time.localtime = lambda seconds=None: real_local(time.time() if seconds is None else seconds)
    time.gmtime = lambda seconds=None: real_utc(time.time() if seconds is None else seconds)
    dt.date, dt.datetime = _pinned_date(dt.date), _pinned_datetime(dt.datetime)  # type: ignore[misc] # that is the point


def _meta(base: type) -> type:
    """Instances of the class that the C library makes count as instances of the pinned one."""

    class Meta(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return (
                isinstance(instance, base)
                if cls.__mro__[1] is base
                else type.__instancecheck__(cls, instance)
            )

    return Meta


def _pinned_date(base: Any) -> Any:
    def today(cls: Any) -> Any:
        return cls.fromtimestamp(time.time())

    members = {
        "today": classmethod(today),
        "__repr__": lambda self: f"datetime.{base.__repr__(self)}",
        "__module__": "datetime",
    }
    return _meta(base)("date", (base,), members)


def _pinned_datetime(base: Any) -> Any:
    def now(cls: Any, tz: Any = None) -> Any:
        return cls.fromtimestamp(time.time(), tz)

    def today(cls: Any) -> Any:
        return cls.fromtimestamp(time.time())

    def utcnow(cls: Any) -> Any:
        return cls.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)

    members = {
        "now": classmethod(now),
        "today": classmethod(today),
        "utcnow": classmethod(utcnow),
        "__repr__": lambda self: f"datetime.{base.__repr__(self)}",
        "__module__": "datetime",
    }
    return _meta(base)("datetime", (base,), members)
