"""The one door: every call of model code passes here.

What comes in is hostile until it is checked.
"""

import asyncio
import hashlib
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.work import spend
from rlm_integrations.errors import InputError, RLMError
from rlm_integrations.records import HostFunction, SpanRef, StoreObject
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.sandbox.wire import Opaque

_OFF_LOOP = 1 << 18  # characters of arguments from which they are hashed in a thread


@dataclass(frozen=True, slots=True)
class CallId:
    """Who a call is, the same in a replay of its block whatever order threads ran in.

    Attributes:
        run: The path of the run that makes it.
        block: The block.
        function: What is called.
        digest: SHA-256 of the arguments.
        occurrence: How many calls of the same block, function and arguments came before.
    """

    run: str
    block: int
    function: str
    digest: str
    occurrence: int

    @property
    def identity(self) -> tuple[str, int, str, str, int]:
        """What a journal knows the call by."""
        return (self.run, self.block, self.function, self.digest, self.occurrence)

    def path(self, letter: str) -> str:
        """The identity in short, such as `r.2/b1f0c9a3e57`: run, block, a letter for the function,
        digest, occurrence from the second on.

        Not a number for each call: threads would get them in another order each time.
        """
        return f"{self.run}.{self.block}/{letter}{self.digest[:10]}{f'~{self.occurrence + 1}' if self.occurrence else ''}"


@dataclass(frozen=True, slots=True)
class Function:
    """A host function and what answers it, given the call and the arguments."""

    spec: HostFunction
    answer: Callable[..., Awaitable[Any]]


class Gate:
    """Gives calls their identity, checks that their arguments fit, and has them answered.

    Identities are given in the order in which calls arrive, before anything is awaited that could
    change it.
    """

    def __init__(
        self,
        run: str,
        functions: Sequence[Function],
        away: Callable[..., Awaitable[Any]] = runtime.offload,
    ) -> None:
        self._away = away  # where large arguments are hashed
        self.run = run
        self._functions = {function.spec.name: function for function in functions}
        self._signatures = {
            function.spec.name: inspect.signature(function.answer) for function in functions
        }
        self._seen: Counter[tuple[int, str, str]] = Counter()
        self._arrivals = asyncio.Lock()  # first come, first served

    @property
    def specs(self) -> list[HostFunction]:
        """What the REPL offers."""
        return [function.spec for function in self._functions.values()]

    async def __call__(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Answer one call; see `sandbox.base.Gate`."""
        async with self._arrivals:
            call = await self._identify(block, function, args, kwargs)
        try:
            bound = self._signatures[function].bind(call, *args, **kwargs)
        except TypeError as error:
            raise HostCallError(
                f"{function}{self._functions[function].spec.signature}: {error}", type="TypeError"
            ) from None
        try:
            return await self._functions[function].answer(*bound.args, **bound.kwargs)
        except InputError as error:
            raise HostCallError(str(error), type="ValueError") from error
        except RLMError as error:
            raise HostCallError(str(error)) from error
        except (MemoryError, OSError) as error:
            raise HostCallError(
                f"{function}: the host lacks what this takes; ask for less",
                type=type(error).__name__,
            ) from error

    async def _identify(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> CallId:
        large = is_large([args, kwargs])
        digest = await self._away(digest_of, args, kwargs) if large else digest_of(args, kwargs)
        occurrence = self._seen[block, function, digest]
        self._seen[block, function, digest] += 1
        return CallId(self.run, block, function, digest, occurrence)


def digest_of(args: list[Any], kwargs: dict[str, Any]) -> str:
    """SHA-256 of arguments in a canonical form: every value by its type and length, keys in order."""
    digest = hashlib.sha256()
    _feed(digest.update, [args, kwargs])
    return digest.hexdigest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    match value:
        case str():
            spend(len(value))
            text = value.encode("utf-8", "surrogatepass")
            update(b"s%d:" % len(text))
            update(text)
        case list() | tuple():
            spend(len(value))
            update(b"l%d:" % len(value))
            for item in value:
                _feed(update, item)
        case dict():
            update(b"d%d:" % len(value))
            for key in sorted(value):
                _feed(update, key)
                _feed(update, value[key])
        case SpanRef():
            _feed(update, ["span", value.source, value.start, value.end])
        case StoreObject():
            _feed(update, ["object", value.id])
        case Opaque():
            _feed(update, ["opaque", value.type, value.text])
        case _:
            _feed(update, f"{type(value).__name__} {value!r}")


def is_large(value: Any) -> bool:
    """Whether a value is worth a thread; no more of it is looked at than it takes to know."""
    room, inside = _OFF_LOOP, [iter([value])]
    while inside and room >= 0:
        each = next(inside[-1], inside)
        room -= 8
        if each is inside:
            inside.pop()
        elif isinstance(each, str):
            room -= len(each)
        elif isinstance(each, list | tuple):
            inside.append(iter(each))
        elif isinstance(each, dict):
            inside += [iter(each), iter(each.values())]
    return room < 0
