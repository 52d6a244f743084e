"""The user's own functions, as model code may call them."""

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

_TAKEN = re.compile(r"context_\d+|__\w*")
_DEEPEST = 50  # of a result


@dataclass(frozen=True, slots=True)
class Tool:
    """A function and what the model is told of it."""

    spec: HostFunction
    function: Callable[..., Any]

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it: an async function on this loop, any other in a thread of its own.

        What it raises, the model's code sees.
        """
        try:
            if inspect.iscoroutinefunction(self.function):
                made = await self.function(*args, **kwargs)
            else:
                made = await in_thread(self.function, *args, **kwargs)
            if inspect.isawaitable(made):  # a decorator may hide that a function is async
                made = await made
            return _crossing(made)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise HostCallError(f"{self.spec.name}: it was cancelled from within") from None
        except (Exception, SystemExit) as error:
            raise HostCallError(
                f"{self.spec.name}: {_said(error)}", type=type(error).__name__
            ) from error


def tools_of(functions: Sequence[Callable[..., Any]], taken: Collection[str]) -> list[Tool]:
    """The user's functions as tools.

    Raises:
        InputError: One is no plain function, or its name is taken.
    """
    if not isinstance(functions, list | tuple | set | frozenset):
        raise InputError(f"tools= is a list of functions, not {functions!r}")
    tools: list[Tool] = []
    for function in functions:
        name = getattr(function, "__name__", "")
        if not inspect.isroutine(function) or not name.isidentifier():
            raise InputError(f"a tool is a plain function with a name, not {function!r}")
        if (
            name in taken
            or _TAKEN.fullmatch(name)
            or name in dir(builtins)
            or any(tool.spec.name == name for tool in tools)
        ):
            raise InputError(
                f"a tool cannot be called {name!r}: the REPL has something of that name; rename it"
            )
        try:
            signature = str(inspect.signature(function))
        except ValueError:
            raise InputError(
                f"{name!r} has no signature that the model could be told: wrap it in a function"
            ) from None
        tools.append(Tool(HostFunction(name, signature, inspect.getdoc(function) or ""), function))
    return tools


def _said(error: BaseException) -> str:
    """What an exception says, if it can."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a class of the user's may raise anything
        return "its message cannot be shown"


def _crossing(value: Any, depth: int = 0) -> Any:
    """What a tool returned, as plain data that can cross into the sandbox; anything else as its
    text.
    """
    if depth > _DEEPEST:
        raise ValueError(f"its result nests deeper than {_DEEPEST} levels")
    if isinstance(value, int) and abs(value) >> 10_000:
        raise ValueError("its result holds a number of thousands of digits")
    if value is None or isinstance(value, str | int | float | SpanRef | StoreObject):
        return value
    if isinstance(value, Mapping):
        return {str(key): _crossing(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_crossing(item, depth + 1) for item in value]
    if hasattr(value, "model_dump") and not isinstance(value, type):  # pydantic's
        return _crossing(value.model_dump(mode="json"), depth + 1)
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _crossing(getattr(value, field.name), depth + 1) for field in fields(value)
        }
    return str(value)
