"""What the replies of a framework's model depend on, as plain JSON: its class, its settings and its
address, without secrets.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from rlm_integrations.errors import InputError

# Ends of the names of fields: secrets and what does not change a reply; and addresses
_IGNORED = ("callbacks", "key", "password", "secret", "token")
_ADDRESSES = ("base", "endpoint", "host", "url")


def identity_of(model: object) -> object:
    """The class of the model and its fields, as plain JSON that is the same in every process.

    Fields that the class excludes from its own serialised form, such as clients and callbacks, do
    not count.

    Raises:
        InputError: A field has a value that has no such form.
    """
    if not isinstance(model, BaseModel):
        raise InputError(f"a {type(model).__name__} does not show its settings")
    kind = type(model)
    found = {
        name: _plain(getattr(model, name, None), f"{kind.__name__}.{name}")
        for name, field in kind.model_fields.items()
        if not field.exclude and not name.endswith(_IGNORED)
    }
    found |= {
        name: _plain(value, f"{kind.__name__}.{name}")
        for name, value in (model.model_extra or {}).items()
        if not name.endswith(_IGNORED)
    }
    if not any(name.endswith(_ADDRESSES) and found[name] for name in found):
        found["clients"] = sorted(_addresses(model))
    return [f"{kind.__module__}.{kind.__qualname__}", found]


def _addresses(model: BaseModel) -> Iterable[str]:
    """The addresses in its clients: some classes read theirs from the environment."""
    values = [*vars(model).values(), *(model.__pydantic_private__ or {}).values()]
    return {str(url) for each in values if (url := getattr(each, "base_url", None)) is not None}


def _plain(value: Any, name: str) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return None
    if isinstance(value, Mapping):
        return {
            str(key): _plain(item, f"{name}[{key!r}]")
            for key, item in value.items()
            if not str(key).endswith(_IGNORED)
        }
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(_plain(item, name)) for item in value)
    if isinstance(value, BaseModel):
        return identity_of(value)
    if (isinstance(value, type) or inspect.isroutine(value)) and "<" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}"
    raise InputError(
        f"{name} is a {type(value).__name__}, and it cannot be told whether it is the same in "
        "another process"
    )
