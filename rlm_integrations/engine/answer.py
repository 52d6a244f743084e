"""What a run answers: the value that came out of the sandbox, as the text or the type that was asked for."""

import json
from collections.abc import Mapping
from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError, SpanRef
from rlm_integrations.sandbox.wire import Opaque


class InvalidAnswerError(Exception):
    """The value does not fit the type; the message says where."""


class Typed:
    """The kind of answer that a user asked for: a text where `output_type` is None, else any type that pydantic validates."""

    def __init__(self, output_type: Any = None) -> None:
        self._adapter: Any = None
        self.schema: Mapping[str, Any] | None = None
        if output_type is None or output_type is str:
            return
        from pydantic import PydanticUserError, TypeAdapter

        try:
            self._adapter = TypeAdapter(output_type)
            self.schema = self._adapter.json_schema()
        except PydanticUserError as error:
            raise InputError(f"output_type={output_type!r} is no type that pydantic validates: {error}") from error

    def read(self, value: Any) -> Any:
        """The answer.

        Raises:
            InvalidAnswerError: The value does not fit.
        """
        if self._adapter is None:
            return self.text(value)
        from pydantic import ValidationError

        try:
            if isinstance(value, str):
                try:
                    return self._adapter.validate_json(value)
                except ValidationError:
                    return self._adapter.validate_python(value)
            return self._adapter.validate_python(_plain(value))
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in error.errors(include_url=False)[:10]]
            raise InvalidAnswerError("\n".join(lines)) from error

    @staticmethod
    def text(value: Any) -> str:
        """The value as a text."""
        plain = _plain(value)
        return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case LLMError():
            return str(value)
        case Opaque():
            return value.text
        case SpanRef():
            return {"source": value.source, "start": value.start, "end": value.end}
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value
