"""Data as a context: values of JSON, and frames of pandas and polars."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from rlm_integrations.corpus.data_shape import describe_shape
from rlm_integrations.corpus.layout import Layout
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import ContextError

MAX_OBJECT_CHARS: Final = 20_000_000  # of JSON that code gets as an object
MAX_OBJECT_CELLS: Final = 1_000_000  # of a frame that code gets as a list of dicts
_MAX_DEPTH: Final = 100
_MAX_COLUMNS: Final = 100  # that are described
_FRAMES: Final = {"pandas", "polars"}


@dataclass(frozen=True, slots=True)
class Data:
    """A dict or list of JSON, or a frame of pandas or polars, as a context or as one of its texts.

    In the REPL it is the object itself; see the engine's README. A dict whose values are all
    strings is otherwise texts by name, and a list of strings a list of texts.

    Attributes:
        value: The dict, list or frame. It is copied when the context is read.
    """

    value: Any


def read_data(thing: object) -> SourceDocument | None:
    """The text of `Data` or of a frame, with what it is; None for other things.

    Raises:
        ContextError: It is not JSON, or a frame whose columns have no names of their own.
    """
    value: Any = thing.value if isinstance(thing, Data) else thing
    library = _frame_library(value)
    if library is not None:
        return _table(value, library)
    if not isinstance(thing, Data):
        return None
    if type(value) not in {dict, list}:
        raise ContextError(
            f"Data needs a dict, a list, or a frame of pandas or polars, not"
            f" {type(value).__name__}: pass text and paths without it"
        )
    _check_json(value)
    text = _json_lines(value)
    is_object = len(text) <= MAX_OBJECT_CHARS
    shape = {"data": "JSON" if is_object else "JSON, as a text", "shape": describe_shape(value)}
    return SourceDocument(text, shape, label="", layout=Layout("value" if is_object else "path"))


def is_json_data(context: object) -> bool:
    """Whether a dict or list is a value of JSON, not texts: an item is a number, a boolean, a dict or
    a list, and none is a path, a document or another object.
    """
    if type(context) not in {dict, list}:
        return False
    items: Any = context.values() if isinstance(context, dict) else context
    kinds = set(map(type, items))
    return bool(kinds & {int, float, bool, dict, list}) and kinds <= {
        *(int, float, bool, dict, list, str, type(None)),
    }


def _frame_library(value: object) -> str | None:
    for kind in type(value).__mro__:
        if kind.__name__ not in {"DataFrame", "LazyFrame", "Series"}:
            continue
        library = kind.__module__.partition(".")[0]
        if library in _FRAMES:
            if kind.__name__ != "DataFrame":
                raise ContextError(
                    f"the context is a {kind.__name__} of {library}: pass a DataFrame, such as"
                    f" {'.collect()' if kind.__name__ == 'LazyFrame' else '.to_frame()'} of it"
                )
            return library
    return None


def _table(frame: Any, library: str) -> SourceDocument:
    if library == "pandas" and type(frame.index).__name__ != "RangeIndex":
        try:
            frame = frame.reset_index()  # it is more than the numbers of the rows
        except ValueError as error:
            raise ContextError(f"the index of the frame cannot be a column: {error}") from error
    names = list(frame.columns)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ContextError(
            f"each column of a frame needs its own name, a string: these are {names!r:.200}"
        )
    if is_object := len(frame) * len(names) <= MAX_OBJECT_CELLS:
        text = _json_lines(_records(frame, library))
    elif library == "pandas":
        text = frame.to_csv(index=False)
    else:
        text = frame.write_csv()
    columns = dict(islice(zip(names, map(str, frame.dtypes), strict=True), _MAX_COLUMNS))
    described: dict[str, Any] = {
        "data": "table" if is_object else "table, as a text in CSV",
        "rows": len(frame),
        "columns": columns,
    }
    if len(columns) < len(names):
        described["more_columns"] = len(names) - len(columns)
    layout = Layout("record" if is_object else "csv record")
    return SourceDocument(text, described, label="", layout=layout)


def _records(frame: Any, library: str) -> list[dict[str, Any]]:
    """The rows. What JSON has not becomes text; what pandas marks as missing becomes None."""
    rows: Iterable[Mapping[str, Any]] = (
        frame.to_dict("records") if library == "pandas" else frame.iter_rows(named=True)
    )
    is_pandas = library == "pandas"
    return [{key: _cell(value, is_pandas=is_pandas) for key, value in row.items()} for row in rows]


def _cell(value: Any, *, is_pandas: bool) -> Any:
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if is_pandas and value != value else value  # noqa: PLR0124 - not a number
    if isinstance(value, Mapping):
        return {str(key): _cell(item, is_pandas=is_pandas) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cell(item, is_pandas=is_pandas) for item in value]
    if type(value).__name__ in {"NaTType", "NAType"}:
        return None
    return str(value)


def _check_json(value: Any) -> None:
    """Refuse what JSON has not, with its path."""
    pending: list[tuple[Any, str, int]] = [(value, "$", 0)]
    while pending:
        item, path, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ContextError(f"the data is nested more than {_MAX_DEPTH} deep, or in a circle")
        if type(item) is dict:
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise ContextError(
                        f"a key of the data is not a string: {key!r:.99} of {path[:200]}"
                    )
                if type(inner) not in _SCALARS:
                    pending.append((inner, f"{path}.{key}", depth + 1))
        elif type(item) is list:
            pending += [
                (inner, f"{path}[{number}]", depth + 1)
                for number, inner in enumerate(item)
                if type(inner) not in _SCALARS
            ]
        else:
            raise ContextError(
                f"the data is not JSON: {path[:200]} is of type {type(item).__name__}; pass a"
                " string or a number for it"
            )


_SCALARS: Final = {str, int, float, bool, type(None)}


def _json_lines(value: "dict[str, Any] | list[Any]") -> str:
    """The JSON of a value, with each of its items on a line of its own."""
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    items = ",\n".join(_items(value))
    return f"{opening}\n{items}\n{closing}"


def _items(value: "dict[str, Any] | list[Any]") -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield json.dumps(item, ensure_ascii=False)
        return
    for key, item in value.items():
        yield f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(item, ensure_ascii=False)}"
