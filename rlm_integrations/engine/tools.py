"""The user's functions that model code may call."""

import asyncio
import builtins
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import InputError
from rlm_integrations.records import HostFunction, SpanRef, StoreObject
from rlm_integrations.sandbox.base import HostCallError

_RESERVED = re.compile(r"context_\d+|__\w*")
_MAX_DEPTH = 50  # of a nested result


@dataclass(frozen=True, slots=True)
class Tool:
    """A function and its description for the model."""

    spec: HostFunction
    function: Callable[..., Any]

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call an async function on this loop, and any other in its own thread.

        Its exceptions are raised in the model's code.
        """
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(*args, **kwargs)
            else:
                result = await in_thread(self.function, *args, **kwargs)
            if inspect.isawaitable(result):  # a decorator may hide that a function is async
                result = await result
            return _to_sandbox(result)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise HostCallError(f"{self.spec.name}: it cancelled itself") from None
        except (Exception, SystemExit) as error:
            raise HostCallError(
                f"{self.spec.name}: {_message_of(error)}", type=type(error).__name__
            ) from error


def tools_of(functions: Sequence[Callable[..., Any]], reserved: Collection[str]) -> list[Tool]:
    """The user's functions as tools.

    Raises:
        InputError: One is not a plain function, or its name is reserved.
    """
    if not isinstance(functions, list | tuple | set | frozenset):
        raise InputError(f"tools must be a list of functions, not {functions!r}")
    tools: list[Tool] = []
    for function in functions:
        name = getattr(function, "__name__", "")
        if not inspect.isroutine(function) or not name.isidentifier():
            raise InputError(f"a tool must be a plain function with a name, not {function!r}")
        if (
            name in reserved
            or _RESERVED.fullmatch(name)
            or name in dir(builtins)
            or any(tool.spec.name == name for tool in tools)
        ):
            raise InputError(
                f"a tool cannot be named {name!r}: the REPL uses that name; rename the function"
            )
        try:
            signature = str(inspect.signature(function))
        except ValueError:
            raise InputError(
                f"{name!r} has no signature to show to the model: wrap it in a function"
            ) from None
        tools.append(Tool(HostFunction(name, signature, inspect.getdoc(function) or ""), function))
    return tools


def _message_of(error: BaseException) -> str:
    """The message of an exception."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's class may raise anything
        return "its message cannot be shown"


def _to_sandbox(value: Any, depth: int = 0) -> Any:
    """The result of a tool as plain data for the sandbox; other objects become strings."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"its result nests deeper than {_MAX_DEPTH} levels")
    if isinstance(value, int) and abs(value) >> 10_000:
        raise ValueError("its result has a number of thousands of digits")
    if value is None or isinstance(value, str | int | float | SpanRef | StoreObject):
        return value
    if isinstance(value, Mapping):
        return {str(key): _to_sandbox(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_to_sandbox(item, depth + 1) for item in value]
    if hasattr(value, "model_dump") and not isinstance(value, type):  # pydantic's
        return _to_sandbox(value.model_dump(mode="json"), depth + 1)
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _to_sandbox(getattr(value, field.name), depth + 1)
            for field in fields(value)
        }
    return str(value)
