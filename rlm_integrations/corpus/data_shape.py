"""The shape of a value of JSON, as models are told it."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

_MAX_CHARS: Final = 1_500
_MAX_KEYS: Final = 30  # of one dict
_MAX_ITEMS: Final = 50  # of one list that are looked at
_MAX_DEPTH: Final = 5


def describe_shape(value: Any) -> str:
    """The types of a value, such as `{'items': [3 of {'name': str, 'price': float | None}]}`. Of a
    long list, the first items are looked at.
    """
    shape = _shape([value], 0)
    return shape if len(shape) <= _MAX_CHARS else f"{shape[:_MAX_CHARS]}…"


def describe_data(metadata: Mapping[str, Any]) -> str:
    """What the metadata of data says of it, in a few words."""
    if "columns" not in metadata:
        return str(metadata.get("shape", "data"))
    columns = ", ".join(f"{name!r} ({kind})" for name, kind in metadata["columns"].items())
    shown = columns if len(columns) <= _MAX_CHARS else f"{columns[:_MAX_CHARS]}…"
    return f"a list of {metadata['rows']:,} dicts, the rows of a table with the columns {shown}"


def _shape(values: Iterable[Any], depth: int) -> str:
    """The types of values that are at the same place."""
    values = list(values)
    dicts = [each for each in values if isinstance(each, dict)]
    lists = [each for each in values if isinstance(each, list)]
    kinds = sorted({type(each).__name__ for each in values} - {"dict", "list", "NoneType"})
    if lists:
        kinds.append(_list(lists, depth))
    if dicts:
        kinds.append(_dict(dicts, depth))
    if any(each is None for each in values):
        kinds.append("None")
    return " | ".join(kinds)


def _list(lists: list[list[Any]], depth: int) -> str:
    lengths = sorted({len(each) for each in lists})
    count = f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,}"
    items = list(islice((item for each in lists for item in each), _MAX_ITEMS))
    inner = f" of {_shape(items, depth + 1)}" if items and depth < _MAX_DEPTH else ""
    return f"[{count}{inner}]"


def _dict(dicts: list[dict[str, Any]], depth: int) -> str:
    keys = list(dict.fromkeys(key for each in dicts for key in each))
    if depth >= _MAX_DEPTH:
        return f"{{{len(keys)} keys}}"
    shown = [
        f"{key!r}: {_shape([each[key] for each in dicts if key in each], depth + 1)}"
        for key in keys[:_MAX_KEYS]
    ]
    more = [f"… {len(keys) - _MAX_KEYS:,} more"] if len(keys) > _MAX_KEYS else []
    return f"{{{', '.join([*shown, *more])}}}"
