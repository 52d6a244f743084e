"""What an object holds: any JSON value, kept as text, so that nobody can change it later and it
never needs a copy.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from sys import getsizeof
from typing import Any

from rlm_integrations.errors import InputError

CONTENT_CHARS = 10_000_000
# Of one object: JSON is read and written in one go, which keeps other threads waiting
VALUES = 200_000
DEPTH = 64  # nesting: the wire to a sandbox carries little more


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value other than a text, as it is written."""

    text: str


Content = str | Json  # a text is kept as it is


def encode_content(value: Any) -> Content:
    """The value as it is kept: what `json` makes of it, so a tuple becomes a list and a number as
    key a text.

    Raises:
        InputError: It is no JSON, nests too deep or is too long.
    """
    content: Content
    if isinstance(value, str):
        content = str.__str__(value)
        length = len(content)
    else:
        if _values(value, VALUES) > VALUES:
            raise InputError(
                f"content holds more than {VALUES:,} values: split it over several objects, or make it one text"
            )
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"content must be JSON (text, number, true, false, None, list, dict), but: {error}. "
                "Turn other values into text or dicts; pass spans as backrefs=[…]"
            ) from None
        if text.count("[") + text.count("{") > DEPTH and _deeper(value, DEPTH):
            raise InputError(f"content nests deeper than {DEPTH} levels")
        content = Json(text)
        length = len(text)
    if length > CONTENT_CHARS:
        raise InputError(
            f"content of {length:,} characters is longer than {CONTENT_CHARS:,}: split it over several objects"
        )
    return content


def decode_content(content: Content) -> Any:
    """The value, made anew at each call."""
    return content if isinstance(content, str) else json.loads(content.text)


def length(content: Content) -> int:
    """How many characters the content takes."""
    return len(content) if isinstance(content, str) else len(content.text)


def memory(content: Content) -> int:
    """How many bytes the content takes; one wide character makes all of them wide."""
    return getsizeof(content if isinstance(content, str) else content.text)


def content_text(content: Content) -> str:
    """What a search reads: a text as it is; of other values each key, text and number on a line of
    its own.
    """
    return content if isinstance(content, str) else "\n".join(_words(json.loads(content.text)))


def _values(value: Any, most: int, levels: int = DEPTH) -> int:
    """How many values there are in a value, itself included, counted up to one more than the most."""
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
