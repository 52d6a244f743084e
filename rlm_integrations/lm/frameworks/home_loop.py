"""The one event loop on which a foreign object's async client may be used.

Such a client keeps connections, and a connection belongs to the loop that opened it. Frameworks
share clients between loops all the same (LangChain even between models): asked on a second loop,
they pay for calls whose answers they lose.
"""

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations._concurrency.runtime import shared

T = TypeVar("T")
Closer = Callable[[], Awaitable[None]]

# Where frameworks keep an HTTP client that the user gave.
GIVEN = ("http_async_client", "_async_http_client")
# Where frameworks and integrations keep the SDK's async client, or that client's own HTTP client.
ATTRIBUTES = (
    "root_async_client",
    "_async_client",
    "async_client",
    "_aclient",
    "_async_http_client",
)


def per_object(kind: str, thing: object, make: Callable[[], T]) -> T:
    """What was made of this kind for this very object, at its first mention in this process; kept
    as long as the object lives.
    """
    table: dict[int, tuple[Any, weakref.ref[object]]] = shared(("remembered", kind), dict)
    entry = table.get(id(thing))
    if entry is None:  # two threads may come here at once, and one wins
        entry = table.setdefault(
            id(thing), (make(), weakref.ref(thing, partial(_forget, table, id(thing))))
        )
    return cast("T", entry[0])


def _forget(table: dict[int, Any], key: int, _: object) -> None:
    table.pop(key, None)


def home_of(model: object) -> "HomeLoop":
    """The home of a model's async client, which other models may share.

    Where the first call makes the client, it is the model's own.
    """
    return per_object(
        "homes of models", model, lambda: per_object("homes", client_of(model) or model, HomeLoop)
    )


class LoopIndependent:
    """What marks an HTTP client as one that keeps connections of its own for each loop."""


def is_at_home_everywhere(model: object) -> bool:
    """Whether a model was given such a client: then any loop may ask it."""
    return any(isinstance(getattr(model, name, None), LoopIndependent) for name in GIVEN)


class HomeLoop:
    """The event loop that came first, until it ends. Then the client's connections are closed, and
    another loop may come.

    Where the client is none whose connections we know how to close, or the loop is closed without
    the shutdown that `asyncio.run` and its like give it, no other loop is ever let in: what is left
    open would be taken for usable there.
    """

    def __init__(self) -> None:
        self._tenancy = _Owner()
        self._kept = PerLoop(partial(_itself, self._tenancy), _end)

    async def is_here(self) -> bool:
        """Whether this is the running loop; it becomes so where none came before."""
        if not self._tenancy.take(asyncio.get_running_loop()):
            return False
        await self._kept.get()  # so that the loop's end is seen
        return True

    def note(self, model: object) -> None:
        """Find out what is to be closed.

        Called after a call, because some clients are made by the first.
        """
        if self._tenancy.closers is None:
            self._tenancy.closers = _closers_of(client_of(model))


class _Owner:
    """Which loop has the client, and how its connections are closed. The client itself is not kept:
    it may go before its loop.
    """

    def __init__(self) -> None:
        self.closers: list[Closer] | None = None  # None until there is a client to be looked at
        self._lock = threading.Lock()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        with self._lock:
            if self._loop is None:
                self._loop = weakref.ref(loop)
            return self._loop() is loop

    def give_up(self) -> None:
        self._loop = None


def _itself(tenancy: _Owner) -> _Owner:
    return tenancy


async def _end(tenancy: _Owner) -> None:
    """On the loop that ends: close what is open there. The client may be used again afterwards: it
    is the user's.
    """
    closers, tenancy.closers = tenancy.closers or [], None
    for close in closers:
        await close()
    if closers:
        tenancy.give_up()


def client_of(model: object) -> object | None:
    """The HTTP client under a model's SDK, if it is of httpx's kind and made already, or Google's
    own, which has several.
    """
    held = {
        **getattr(model, "__dict__", {}),
        **(getattr(model, "__pydantic_private__", None) or {}),
    }
    for name in ("client", "_client"):
        if (google := getattr(held.get(name), "_api_client", None)) is not None:
            return cast("object", google)
    for name in ATTRIBUTES:
        found: Any = None
        with suppress(Exception):  # some are made when they are looked at
            found = getattr(model, name, None)
        for _ in range(3):  # the SDK's resource, the SDK, its HTTP client
            if hasattr(found, "_transport"):
                return cast("object", found)
            found = getattr(found, "_client", None)
    return None


def _closers_of(client: Any) -> list[Closer] | None:
    """What closes the client's connections on this loop, and nothing more; None where there is
    nothing yet. Nothing public leads there.
    """
    if client is None:
        return None
    # Google's: a session for each loop, made anew where it is closed
    if getattr(client, "_use_aiohttp", bool)():
        session = getattr(client, "_aiohttp_sessions", {}).get(asyncio.get_running_loop())
        return None if session is None else [session.close]
    client = getattr(client, "_async_httpx_client", client)
    if not hasattr(client, "_transport"):
        return []
    transports = (client._transport, *client._mounts.values())  # noqa: SLF001 - as above
    return [transport._pool.aclose for transport in transports if hasattr(transport, "_pool")]  # noqa: SLF001 - as above
