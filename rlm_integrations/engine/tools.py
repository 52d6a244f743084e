"""The user's own functions, as model code may call them."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.records import HostFunction
from rlm_integrations.sandbox.base import HostCallError

_THREADS = threading.BoundedSemaphore(64)  # of foreign synchronous code at once


@dataclass(frozen=True, slots=True)
class Tool:
    """A function and what the model is told of it."""

    spec: HostFunction
    function: Callable[..., Any]

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it: an async function on this loop, any other in a thread of its own. What it raises, the model's code sees."""
        try:
            if inspect.iscoroutinefunction(self.function):
                return await self.function(*args, **kwargs)
            return await in_thread(self.function, *args, **kwargs)
        except Exception as error:
            raise HostCallError(f"{self.spec.name}: {error}", type=type(error).__name__) from error


def tools_of(functions: Sequence[Callable[..., Any]], taken: set[str]) -> list[Tool]:
    """The user's functions as tools.

    Raises:
        InputError: One is no plain function, or its name is taken.
    """
    tools: list[Tool] = []
    for function in functions:
        name = getattr(function, "__name__", "")
        if not inspect.isroutine(function) or not name.isidentifier():
            raise InputError(f"a tool is a plain function with a name, not {function!r}")
        if name in taken or any(tool.spec.name == name for tool in tools):
            raise InputError(f"a tool cannot be called {name!r}: the REPL has a function of that name; rename it")
        doc = inspect.getdoc(function) or ""
        tools.append(Tool(HostFunction(name, str(inspect.signature(function)), doc), function))
    return tools


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run foreign synchronous code in a thread of its own, with the caller's context variables.

    Never in a shared pool: such code may wait for more of its kind. A cancelled call is left behind: nothing can stop it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def finish(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error if not isinstance(error, StopIteration) else RuntimeError("a tool raised StopIteration"))

    def run() -> None:
        result, error = None, None
        with _THREADS:
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as raised:  # noqa: BLE001 - it is raised where the result is awaited
                error = raised
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            return  # the loop has ended without waiting

    threading.Thread(target=run, daemon=True, name=f"rlm-tool-{getattr(function, '__name__', '')}").start()
    return await done
