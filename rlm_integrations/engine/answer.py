"""Converts the final value of the sandbox into an answer: a string, or the `output_type`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef, StoreObject
from rlm_integrations.sandbox.base import FinalValue
from rlm_integrations.sandbox.output import replace_surrogates
from rlm_integrations.sandbox.wire import Opaque


class InvalidAnswerError(Exception):
    """The value does not match the type; the message names the field."""


class AnswerTooLongError(InvalidAnswerError):
    """The value is longer than the limit of an answer."""


class AnswerType:
    """The type of the answers: a string if `output_type` is None, otherwise any type that pydantic
    validates.

    Args:
        output_type: The type.
        most: The maximum length of an answer, in characters.

    Attributes:
        schema: The JSON schema of the type; None for strings.
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
                f"output_type={output_type!r} is not a type that pydantic validates: {error}"
            ) from error

    def read(self, value: Any) -> Any:
        """The value as an answer of the type.

        Raises:
            AnswerTooLongError: The value is too long.
            InvalidAnswerError: The value does not match the type.
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
            try:  # strict types accept a date, a tuple or an enumeration only from JSON
                return self._validated(
                    self._adapter.validate_json, plain if is_json else json.dumps(plain)
                )
            except InvalidAnswerError as as_json:
                raise (as_json if is_json else as_value) from None

    def joined(self, final: FinalValue) -> FinalValue:
        """A final whose value is one or several of `{"text": …, "evidence": …}` as the text of all,
        with a number in brackets for each piece of evidence; any other as it is.
        """
        sentences = final.value if isinstance(final.value, list) else [final.value]
        if self.schema is not None or not sentences or not all(map(_is_sentence, sentences)):
            return final
        texts: list[str] = []
        evidence = list(final.evidence)
        for each in sentences:
            own = each["evidence"] if isinstance(each["evidence"], list) else [each["evidence"]]
            first = len(evidence) + 1
            evidence += own
            marks = "".join(f"[{number}]" for number in range(first, first + len(own)))
            texts.append(f"{each['text'].rstrip()} {marks}".rstrip())
        return replace(final, value=" ".join(texts), evidence=tuple(evidence))

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
        except Exception as error:  # a user's validator may raise anything
            raise InvalidAnswerError(f"{type(error).__name__}: {error}") from error

    def text(self, value: Any) -> str:
        """The value as a string, cut at the maximum length of an answer."""
        if self.is_too_long(value) and not isinstance(value, str):
            return f"(a {type(value).__name__} of more than {self._most:,} characters)"
        plain = _plain(value)
        return (plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))[
            : self._most
        ]

    def is_too_long(self, value: Any) -> bool:
        """Whether the strings and values in a value exceed the maximum length of an answer. The
        traversal stops as soon as they do.
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


def _is_sentence(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"text", "evidence"}
        and isinstance(value["text"], str)
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _plain(value: Any) -> Any:
    """The value as JSON types. Lone surrogates in its strings are replaced, so that they can be
    printed and written.
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
