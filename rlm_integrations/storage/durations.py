"""Durations as people write them: 12h, 30d, 2w."""

import re
from datetime import timedelta

from rlm_integrations.errors import InputError, quote_value

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_duration(name: str, value: object) -> timedelta:
    """The duration of a string like "30d", or the value itself if it is a `timedelta`.

    Raises:
        InputError: It is neither; `name` is what the message calls it.
    """
    if isinstance(value, timedelta) and value >= timedelta(0):
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"([1-9]\d{0,4}) *([hdw])", value)):
        return int(found[1]) * _UNITS[found[2]]
    raise InputError(f"{name} must be like 12h, 30d or 2w, not {quote_value(value)}")
