"""A block of code while it runs: it stops at the run's time limit, and is ended properly if the run
is cancelled.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextvars import Context

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations.engine.budget import Purse
from rlm_integrations.engine.sub_calls import SubCalls
from rlm_integrations.errors import SandboxError
from rlm_integrations.sandbox.base import ExecutionError, ExecutionResult, Session

_NOT_DONE = ExecutionResult(
    status="interrupted", error=ExecutionError("Interrupted", "the run ended before the block did")
)


class BlockUnderWay:
    """One block in a session.

    Args:
        session: The session to run it in.
        code: Its code.
        number: Its number.
        calls: Makes its model calls.
        purse: The budget, which has the time limit.
        unfinished: Replies, by prompt, that an earlier block did not receive; this one gets them.
    """

    def __init__(
        self,
        session: Session,
        code: str,
        number: int,
        *,
        calls: SubCalls,
        purse: Purse,
        unfinished: Mapping[str, str],
    ) -> None:
        self._session = session
        self._calls = calls
        self._purse = purse
        # Strong references: the event loop has only weak ones
        self._interrupts: set[asyncio.Task[None]] = set()
        self._task = asyncio.ensure_future(self._run(code, number, unfinished))

    @property
    def result(self) -> ExecutionResult:
        """Its result, which may be partial."""
        return _NOT_DONE if self._has_failed else self._task.result()

    @property
    def has_ended_session(self) -> bool:
        """Whether its session cannot be used any more."""
        return self._has_failed or self._task.result().status == "lost"

    @property
    def _has_failed(self) -> bool:
        return self._task.cancelled() or self._task.exception() is not None

    def interrupt(self) -> None:
        """Interrupt the block, and keep the session."""
        self._interrupts.add(asyncio.ensure_future(self._session.interrupt()))

    async def done(self, *, keeps_session: bool) -> None:
        """Wait for the block. If the wait is cancelled, the block is ended first: by an interrupt,
        or together with its session.

        Raises:
            Exception: The session raised it.
        """
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            try:
                if keeps_session:
                    self._calls.is_withdrawn = True
                    await self._session.interrupt()
                else:
                    self._task.cancel()
            finally:
                await wait_until_done(self._task)
            raise

    async def _run(self, code: str, number: int, unfinished: Mapping[str, str]) -> ExecutionResult:
        if unfinished:
            # If the session is lost, the block itself reports it
            with contextlib.suppress(SandboxError):
                await self._session.set_vars({"unfinished_replies": unfinished})
        if self._calls.is_withdrawn:  # cancelled before it began
            return _NOT_DONE
        with self._deadline():
            return await self._session.execute(code, number)

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        """Interrupt the block once the run's time is over."""
        left = self._purse.seconds_left()
        if left is None:
            yield
            return

        def over() -> None:
            self._purse.spent_out = self._purse.spent_out or "budget_seconds"
            self.interrupt()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, left), over, context=Context())
        try:
            yield
        finally:
            timer.cancel()
