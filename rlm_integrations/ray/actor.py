"""What runs in the process of an actor: whole runs, workers, and REPLs of runs in other processes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ray import cloudpickle

from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import ClusterError, InputError, RLMError, RunBusyError, SandboxError
from rlm_integrations.events import CallFailed, CallFinished, CallReplayed, Event
from rlm_integrations.jobs import Worker
from rlm_integrations.jobs.worker import JobOutcome
from rlm_integrations.ray.documents import HeldDocuments, SentDocument
from rlm_integrations.ray.held_session import (
    CallReply,
    Frame,
    HeldSession,
    SessionGone,
    SessionOpening,
)
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import VERSION
from rlm_integrations.storage.owner import this_machine

_MAX_RLMS = 8  # kept, with their connections, for further runs
_SECONDS_BETWEEN_TRIES = 0.5  # to take a run whose process is not known to be gone yet


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkTask:
    """A queue to work off.

    Attributes:
        key: Names the task, to end it.
        pickled: The pickled `Storage`, RLM or function, and options of a `Worker`.
        until_empty: Whether to end when the queue is empty.
    """

    key: str
    pickled: bytes
    until_empty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTask:
    """A question for an actor.

    Attributes:
        key: Names the task, to cancel it.
        rlm: The pickled RLM.
        question: The question.
        document: The document.
        run_id: The id of the run.
        sends_events: Whether the events are wanted.
        sent_at: When it was sent, in seconds of the sender's `time.monotonic()`.
        patience: How many seconds to wait for a stored run that another process seems to have.
    """

    key: str
    rlm: bytes
    question: str
    document: SentDocument
    run_id: str
    sends_events: bool
    sent_at: float
    patience: float


class ActorProcess:
    """The actor.

    Args:
        version: The version of the library in the process that started it.

    Raises:
        InputError: The node has another version.
    """

    def __init__(self, version: str) -> None:
        if version != VERSION:
            raise InputError(
                f"this node has rlm-integrations {VERSION}, and the program {version}: "
                "install the same version on every node"
            )
        self._documents = HeldDocuments()
        self._rlms: dict[bytes, RLM[Any]] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._sessions: dict[str, HeldSession] = {}

    async def ready(self) -> None:
        """Nothing: the actor is running."""

    # Whole runs.

    async def run(self, task: RunTask) -> AsyncGenerator[Event | RLMResult[Any] | RLMError, None]:
        """The events of a run if they are wanted, and then its result or its error."""
        messages: asyncio.Queue[Event | None] = asyncio.Queue()
        adapt = _adapter(task)
        running = asyncio.ensure_future(
            self._complete(task, lambda event: messages.put_nowait(adapt(event)))
        )
        running.add_done_callback(lambda _: messages.put_nowait(None))
        self._tasks[task.key] = running
        try:
            while (event := await messages.get()) is not None:
                yield event
        finally:
            del self._tasks[task.key]
            running.cancel()
            await wait_until_done(running)
        if running.cancelled():
            return  # its sender does not wait for the outcome
        try:
            yield running.result()
        except RLMError as error:
            yield error

    async def stop(self, key: str) -> None:
        """Cancel a run or a worker, and wait until it has ended."""
        running = self._tasks.get(key)
        if running is not None:
            running.cancel()
            await wait_until_done(running)

    async def _complete(self, task: RunTask, keep: Callable[[Event], object]) -> RLMResult[Any]:
        rlm = self._rlm(task.rlm)
        if task.sends_events:
            rlm = rlm.replace(on_event=keep)
        until = time.monotonic() + task.patience
        async with self._documents.open(task.document) as corpus:
            while True:
                try:
                    return await rlm.acompletion(task.question, corpus, run_id=task.run_id)
                except RunBusyError:
                    if time.monotonic() > until:
                        raise
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)

    def _rlm(self, pickled: bytes) -> RLM[Any]:
        """The RLM, which further runs share, and its storage and connections with it."""
        if pickled not in self._rlms:
            for oldest in list(self._rlms)[: 1 - _MAX_RLMS]:
                del self._rlms[oldest]
            self._rlms[pickled] = _loaded(pickled)
        return self._rlms[pickled]

    # Workers.

    async def work(self, task: WorkTask) -> Mapping[JobOutcome, int] | RLMError:
        """Work off a queue; how many jobs ended in which way, or why it cannot be done."""
        working = self._tasks[task.key] = asyncio.ensure_future(_work(task))
        await wait_until_done(working)
        del self._tasks[task.key]
        try:
            return {} if working.cancelled() else working.result()
        except RLMError as error:
            return error

    # REPLs.

    async def open_session(self, key: str, opening: SessionOpening) -> Mapping[str, str] | RLMError:
        """Open a session; the state of its layers, or why it could not be opened."""
        held = self._sessions[key] = HeldSession()
        try:
            return dict((await held.open(self._documents, opening)).layers)
        except RLMError as error:
            return error

    async def execute(self, key: str, code: str, block: int) -> AsyncGenerator[Frame, None]:
        """Run a block: the calls of its code, and then its result."""
        if key not in self._sessions:
            yield SessionGone()
            return
        async for frame in self._sessions[key].execute(code, block):
            yield frame

    async def answer(self, key: str, number: int, reply: CallReply) -> None:
        """Answer a call of a block."""
        if key in self._sessions:
            self._sessions[key].take(number, reply)

    async def set_vars(
        self, key: str, variables: Mapping[str, Any]
    ) -> SandboxError | SessionGone | None:
        """Bind variables of a session; None, or why it was not done."""
        if key not in self._sessions:
            return SessionGone()
        try:
            await self._sessions[key].set_vars(variables)
        except SandboxError as error:
            return error
        return None

    async def interrupt(self, key: str) -> None:
        """Interrupt the running block of a session."""
        if key in self._sessions:
            await self._sessions[key].interrupt()

    async def close_session(self, key: str) -> None:
        """End a session at once."""
        if key in self._sessions:
            await self._sessions.pop(key).close()


async def _work(task: WorkTask) -> Mapping[JobOutcome, int]:
    storage, rlm, options = await in_thread(_loaded, task.pickled)
    try:
        return await Worker(storage, rlm, **options).arun(until_empty=task.until_empty)
    finally:
        await finish_despite_cancel(in_thread(storage.close))


def _loaded(pickled: bytes) -> Any:
    machine, value = cloudpickle.loads(pickled)
    if machine not in {None, this_machine()}:
        raise ClusterError(
            "this actor is on another machine than the folder of the storage: use a database on a "
            "server, or actors on that machine"
        )
    try:
        return cloudpickle.loads(value)
    except RLMError:
        raise
    except Exception as error:
        raise ClusterError(
            f"this node cannot load the options: {type(error).__name__}: {error}"
        ) from error


def _adapter(task: RunTask) -> Callable[[Event], Event]:
    """Converts an event for the sender: the ids of several processes' events stay distinct, and
    times are those of the sender's clock.
    """
    shift = task.sent_at - time.monotonic()

    def adapted(event: Event) -> Event:
        parent = None if event.parent is None else f"{task.key}/{event.parent}"
        changes: dict[str, Any] = {}
        if isinstance(event, CallFinished | CallFailed | CallReplayed):
            record = event.record
            changes["record"] = replace(record, start=record.start + shift, end=record.end + shift)
        return replace(
            event, id=f"{task.key}/{event.id}", parent=parent, at=event.at + shift, **changes
        )

    return adapted
