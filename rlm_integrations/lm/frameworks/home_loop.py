"""The one event loop on which the async client of a framework's model may be used.

Such a client keeps connections, and a connection belongs to the loop that opened it. Frameworks
share clients between loops nevertheless (LangChain even between models): calls on a second loop are
charged, and their answers are lost.
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

# Attributes of frameworks for an HTTP client from the user.
USER_CLIENT_ATTRIBUTES = ("http_async_client", "_async_http_client")
# Attributes of frameworks and integrations for the SDK's async client, or its HTTP client.
CLIENT_ATTRIBUTES = (
    "root_async_client",
    "_async_client",
    "async_client",
    "_aclient",
    "_async_http_client",
)


def per_object(kind: str, thing: object, make: Callable[[], T]) -> T:
    """The value of this kind for this object, made at the first use in this process, and kept as
    long as the object lives.
    """
    table: dict[int, tuple[Any, weakref.ref[object]]] = shared(("remembered", kind), dict)
    entry = table.get(id(thing))
    if entry is None:  # two threads may get here at once: the first one wins
        entry = table.setdefault(
            id(thing), (make(), weakref.ref(thing, partial(_forget, table, id(thing))))
        )
    return cast("T", entry[0])


def _forget(table: dict[int, Any], key: int, _: object) -> None:
    table.pop(key, None)


def home_of(model: object) -> "HomeLoop":
    """The home loop of a model's async client, which other models may share.

    If the client is only made by the first call, the home belongs to the model.
    """
    return per_object("homes of models", model, lambda: home_of_client(client_of(model) or model))


def home_of_client(client: object) -> "HomeLoop":
    """The home loop of an HTTP client."""
    return per_object("homes", client, HomeLoop)


class LoopIndependent:
    """Marks an HTTP client that keeps separate connections for each event loop."""


def is_at_home_everywhere(model: object) -> bool:
    """Whether a model has such a client: then it may be called on any loop."""
    return any(
        isinstance(getattr(model, name, None), LoopIndependent) for name in USER_CLIENT_ATTRIBUTES
    )


class HomeLoop:
    """The event loop that used the client first, until it ends. Then the client's connections are
    closed, and another loop may take its place.

    If we cannot close the client's connections, or its loop closed without async-generator
    shutdown, the client stays tied to that loop: another loop would reuse dead connections.
    """

    def __init__(self) -> None:
        self._owner = _Owner()
        self._per_loop = PerLoop(partial(_return_owner, self._owner), _end)

    async def is_here(self) -> bool:
        """Whether the running loop is the home; it becomes the home if there is none yet."""
        if not self._owner.take(asyncio.get_running_loop()):
            return False
        await self._per_loop.get()  # so that the loop's shutdown ends the ownership
        return True

    def note(self, model: object) -> None:
        """Record how the client is closed.

        Called after each call, because the first call makes some clients.
        """
        self.note_client(client_of(model))

    def note_client(self, client: object) -> None:
        """The same for the HTTP client itself."""
        if self._owner.closers is None:
            self._owner.closers = _closers_of(client)


class _Owner:
    """The loop that owns the client, and how its connections are closed. There is no reference to
    the client, which may be collected before its loop ends.
    """

    def __init__(self) -> None:
        self.closers: list[Closer] | None = None  # None until the client exists
        self._lock = threading.Lock()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        with self._lock:
            if self._loop is None:
                self._loop = weakref.ref(loop)
            return self._loop() is loop

    def give_up(self) -> None:
        self._loop = None


def _return_owner(owner: _Owner) -> _Owner:
    return owner


async def _end(owner: _Owner) -> None:
    """On the loop that ends: close its connections. The user may use the client again
    afterwards.
    """
    closers, owner.closers = owner.closers or [], None
    for close in closers:
        await close()
    if closers:
        owner.give_up()


def client_of(model: object) -> object | None:
    """The HTTP client of a model's SDK, if it is httpx's and made already, or Google's API client,
    which has several.
    """
    held = {
        **getattr(model, "__dict__", {}),
        **(getattr(model, "__pydantic_private__", None) or {}),
    }
    for name in ("client", "_client"):
        if (google := getattr(held.get(name), "_api_client", None)) is not None:
            return cast("object", google)
    for name in CLIENT_ATTRIBUTES:
        found: Any = None
        with suppress(Exception):  # some are made on access
            found = getattr(model, name, None)
        for _ in range(3):  # the SDK's resource, the SDK, its HTTP client
            if hasattr(found, "_transport"):
                return cast("object", found)
            found = getattr(found, "_client", None)
    return None


def _closers_of(client: Any) -> list[Closer] | None:
    """The functions that close the client's connections on this loop; None if there is no client
    yet. There is no public API for this.
    """
    if client is None:
        return None
    # Google's: a session for each loop, made again after it was closed
    if getattr(client, "_use_aiohttp", bool)():
        session = getattr(client, "_aiohttp_sessions", {}).get(asyncio.get_running_loop())
        return None if session is None else [session.close]
    client = getattr(client, "_async_httpx_client", client)
    if not hasattr(client, "_transport"):
        return []
    transports = (client._transport, *client._mounts.values())  # noqa: SLF001 - as above
    # As above
    return [transport._pool.aclose for transport in transports if hasattr(transport, "_pool")]  # noqa: SLF001
