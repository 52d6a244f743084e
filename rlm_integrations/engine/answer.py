"""What a run answers: the value that came out of the sandbox, as the text or the type that was
asked for.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef, StoreObject
from rlm_integrations.sandbox.output import replace_surrogates
from rlm_integrations.sandbox.wire import Opaque


class InvalidAnswerError(Exception):
    """The value does not fit the type; the message says where."""


class AnswerTooLongError(InvalidAnswerError):
    """The value has more characters than an answer may have."""


class AnswerType:
    """The kind of answer that a user asked for: a text where `output_type` is None, else any type
    that pydantic validates.
    """

    def __init__(self, output_type: Any = None, *, most: int) -> None:
        self._most = most
        self._adapter: Any = None
        self.schema: Mapping[str, Any] | None = None
        if output_type is None or output_type is str:
            return
        from pydantic import TypeAdapter

        try:
            self._adapter = TypeAdapter(output_type)
            self.schema = self._adapter.json_schema()
        except Exception as error:
            raise InputError(
                f"output_type={output_type!r} is no type that pydantic validates: {error}"
            ) from error

    def read(self, value: Any) -> Any:
        """The answer.

        Raises:
            AnswerTooLongError: It has more characters than an answer may have.
            InvalidAnswerError: The value does not fit.
        """
        if self.is_too_long(value):
            raise AnswerTooLongError(f"an answer has at most {self._most:,} characters")
        if self._adapter is None:
            return self.text(value)
        plain = _plain(value)
        is_json = isinstance(plain, str) and _is_json(plain)
        try:
            return self._validated(self._adapter.validate_python, plain)
        except InvalidAnswerError as as_value:
            try:  # strict types take a date, a tuple or an enumeration from JSON alone
                return self._validated(
                    self._adapter.validate_json, plain if is_json else json.dumps(plain)
                )
            except InvalidAnswerError as as_json:
                raise (as_json if is_json else as_value) from None

    @staticmethod
    def _validated(validate: Callable[[Any], Any], value: Any) -> Any:
        from pydantic import ValidationError

        try:
            return validate(value)
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}"
                for each in error.errors(include_url=False)[:10]
            ]
            raise InvalidAnswerError("\n".join(lines)) from error
        except Exception as error:  # a validator of the user's may raise anything
            raise InvalidAnswerError(f"{type(error).__name__}: {error}") from error

    def text(self, value: Any) -> str:
        """The value as a text, as far as an answer may be long."""
        if self.is_too_long(value) and not isinstance(value, str):
            return f"(a {type(value).__name__} of more than {self._most:,} characters)"
        plain = _plain(value)
        return (plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))[
            : self._most
        ]

    def is_too_long(self, value: Any) -> bool:
        """Whether the texts and values in a value are more than an answer may have characters; no
        more is looked at than that takes.
        """
        room, inside = self._most, [iter([value])]
        while inside and room >= 0:
            each = next(inside[-1], inside)
            if each is inside:
                inside.pop()
                continue
            room -= len(each) if isinstance(each, str) else 4
            if isinstance(each, Opaque):
                room -= len(each.text)
            elif isinstance(each, StoreObject):
                inside.append(iter([each.content]))
            elif isinstance(each, list):
                inside.append(iter(each))
            elif isinstance(each, dict):
                inside += [iter(each), iter(each.values())]
        return room < 0


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _plain(value: Any) -> Any:
    """The value in JSON's types; its texts can be printed and written, whatever code has put into
    them.
    """
    match value:
        case str():
            return replace_surrogates(value)
        case Opaque():
            return replace_surrogates(value.text)
        case StoreObject():
            return _plain(value.content)
        case SpanRef():
            return {"source": value.source, "start": value.start, "end": value.end}
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {_plain(key): _plain(item) for key, item in value.items()}
    return value
