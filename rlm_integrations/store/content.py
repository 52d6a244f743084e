"""The content of an object: any JSON value, kept as text, so that it cannot change later and never
needs a copy.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from sys import getsizeof
from typing import Any

from rlm_integrations.errors import InputError

CONTENT_CHARS = 10_000_000
# Of one object: JSON is parsed and written in one step, during which other threads wait
VALUES = 200_000
DEPTH = 64  # nesting: the wire to a sandbox carries little more


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value other than a string, as JSON text."""

    text: str


Content = str | Json  # a string is kept as it is


def encode_content(value: Any) -> Content:
    """The value in its stored form, with the conversions of `json`: a tuple becomes a list, and a
    number as a key becomes a string.

    Raises:
        InputError: It is not JSON, nests too deep or is too long.
    """
    content: Content
    if isinstance(value, str):
        content = str.__str__(value)
        length = len(content)
    else:
        if _values(value, VALUES) > VALUES:
            raise InputError(
                f"content holds more than {VALUES:,} values: split it over several objects, "
                "or make it one string"
            )
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                "content must be JSON (string, number, true, false, None, list, dict), but: "
                f"{error}. Turn other values into strings or dicts; pass spans as backrefs=[…]"
            ) from None
        if text.count("[") + text.count("{") > DEPTH and _deeper(value, DEPTH):
            raise InputError(f"content nests deeper than {DEPTH} levels")
        content = Json(text)
        length = len(text)
    if length > CONTENT_CHARS:
        raise InputError(
            f"content of {length:,} characters is longer than {CONTENT_CHARS:,}: split it "
            "over several objects"
        )
    return content


def decode_content(content: Content) -> Any:
    """The value; a new object at each call."""
    return content if isinstance(content, str) else json.loads(content.text)


def length(content: Content) -> int:
    """The number of characters of the content."""
    return len(content) if isinstance(content, str) else len(content.text)


def memory(content: Content) -> int:
    """The bytes of memory of the content; one wide character makes all of them wide."""
    return getsizeof(content if isinstance(content, str) else content.text)


def content_text(content: Content) -> str:
    """The text that searches read: a string as it is; of other values each key, string and number
    on its own line.
    """
    return content if isinstance(content, str) else "\n".join(_words(json.loads(content.text)))


def _values(value: Any, most: int, levels: int = DEPTH) -> int:
    """The number of values in a value, itself included; counting stops one above `most`."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 1
    count = 1 + len(value)
    if levels:
        for item in value:
            if isinstance(item, dict | list | tuple):
                count += _values(item, most - count, levels - 1) - 1
            if count > most:
                break
    return count


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_deeper(item, levels - 1) for item in value)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield str(value)
