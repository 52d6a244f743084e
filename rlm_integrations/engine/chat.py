"""A conversation: several questions over one context and one REPL."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations._concurrency.portal import portal
from rlm_integrations._json import to_plain
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.stream import Wanted, stream_events
from rlm_integrations.errors import InputError
from rlm_integrations.events import Emitter, Event, Hook
from rlm_integrations.result import RLMResult

Complete = Callable[..., Awaitable[RLMResult]]


def steps_of(result: RLMResult) -> list[dict[str, Any]]:
    """The turns of a run as plain dicts, each with the number of its model calls."""
    return [{**to_plain(turn), "subcalls": turn.calls} for turn in result.trajectory]


class Chat:
    """A conversation that keeps the variables and messages of earlier questions. Close it, or use
    it in a `with` statement.

    They are also kept after a question that was cancelled or stopped by a limit. A budget applies
    to each question.

    A chat is tied to the event loop of its first question: use only `completion`, or only
    `acompletion` on one loop.
    """

    def __init__(
        self,
        complete: Complete,
        open_repl: Callable[[], Awaitable[LazySession]],
        context: object,
        hooks: Sequence[Hook | None],
    ) -> None:
        self._complete = complete
        self._open_repl = open_repl
        self._context = context
        self._hooks = hooks
        self._repl: LazySession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking: asyncio.Task[RLMResult] | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def acompletion(self, query: str) -> RLMResult:
        """The answer to the next question; see `RLM.acompletion`."""
        return await self._ask(query)

    async def _ask(self, query: str, *hooks: Hook) -> RLMResult:
        self._check()
        async with self._turn:
            self._check()
            self._loop = asyncio.get_running_loop()
            self._asking = asyncio.ensure_future(self._answer(query, hooks))
            try:
                return await self._asking
            except asyncio.CancelledError:
                self._check()  # `aclose` cancels it too
                raise
            finally:
                self._asking = None

    async def _answer(self, query: str, hooks: Sequence[Hook]) -> RLMResult:
        if self._repl is None:
            self._repl = await self._open_repl()
        return await self._complete(
            query, self._context, Emitter(*self._hooks, *hooks), repl=self._repl
        )

    def completion(self, query: str) -> RLMResult:
        """The answer to the next question, for scripts, threads and notebooks; see
        `RLM.completion`.
        """
        return portal().run(self.acompletion(query))

    async def aquery(self, query: str) -> tuple[Any, list[dict[str, Any]]]:
        """The answer to the next question, and its turns as plain dicts; see `RLM.aquery`."""
        result = await self._ask(query)
        return result.answer, steps_of(result)

    def query(self, query: str) -> tuple[Any, list[dict[str, Any]]]:
        """The answer to the next question, and its turns as plain dicts, for scripts, threads and
        notebooks; see `RLM.aquery`.
        """
        return portal().run(self.aquery(query))

    def astream(self, query: str, *, only: Wanted | None = None) -> AsyncGenerator[Event, None]:
        """The events of the next question as they occur; see `RLM.astream`."""
        return stream_events(lambda hook: self._ask(query, hook), only)

    def stream(self, query: str, *, only: Wanted | None = None) -> Iterator[Event]:
        """The events of the next question as they occur, for scripts, threads and notebooks; see
        `RLM.stream`.
        """
        return portal().iterate(self.astream(query, only=only))

    async def aclose(self) -> None:
        """End the REPL and release the document.

        A question in progress is cancelled.
        """
        self._check_loop()
        self._closed = True
        if self._repl is not None:
            self._repl.is_kept = False
        try:
            if self._asking is not None:
                self._asking.cancel()
                await wait_until_done(self._asking)
        finally:
            repl, self._repl = self._repl, None
            if repl is not None:
                await repl.end(keep=self._context)

    def close(self) -> None:
        """End the REPL and release the document, for scripts, threads and notebooks.

        A question in progress is cancelled.
        """
        portal().run(self.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _check(self) -> None:
        if self._closed:
            raise InputError("this session is closed; create another with RLM.session")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise InputError(
                "this session began on another event loop: use only completion(), or only "
                "acompletion() on one loop"
            )
