"""A batch of runs on the actors of a cluster."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from ray import cloudpickle

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.engine.answering import corpus_of
from rlm_integrations.engine.display import display_hooks
from rlm_integrations.engine.front_types import Context
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import ClusterError, InputError, RLMError
from rlm_integrations.events import Emitter, Event, RunFailed, RunFinished, RunStarted
from rlm_integrations.ray.actor import RunTask
from rlm_integrations.ray.cluster import ACTOR_ENDED, Actors
from rlm_integrations.ray.documents import SentDocument
from rlm_integrations.records import Limits
from rlm_integrations.result import RLMResult
from rlm_integrations.storage import Storage

Outcome: TypeAlias = RLMResult[Any] | RLMError
"""What a question of a batch leaves: its result, or the error that it would raise."""

_PATIENCE = 60.0  # seconds, after which a storage knows that the process of a run has ended


class RunBatch:
    """Runs of one RLM on actors; see `RayExecutor.abatch`.

    Attributes:
        items: The questions, each with its context and the id of its run.
    """

    def __init__(
        self,
        actors: Actors,
        max_restarts: int,
        rlm: RLM[Any],
        questions: Iterable[tuple[str, Context]],
        run_ids: Iterable[str] | None,
    ) -> None:
        if not isinstance(rlm, RLM):
            raise InputError(f"a batch needs an RLM, not {type(rlm).__name__}")
        self.items = _items(questions, run_ids)
        self._actors = actors
        self._max_restarts = max_restarts
        self._options = rlm.options
        self._pickled = pickled_for_actors(sendable(rlm), rlm.options["storage"])
        self._emit = Emitter(
            rlm.options["on_event"],
            *display_hooks(verbose=rlm.options["verbose"], progress=rlm.options["show_progress"]),
        )
        # Contexts by identity: the items hold them, so that an identity means one object
        self._uses = Counter(id(context) for _, context, _ in self.items)
        self._sent: dict[int, asyncio.Task[SentDocument]] = {}

    async def answer(self, question: str, context: Context, run_id: str) -> Outcome:
        """The outcome of one run."""
        try:
            document = await asyncio.shield(self._document(context))
            return await self._answer(question, document, run_id)
        except RLMError as error:
            return error
        finally:
            self._uses[id(context)] -= 1
            if not self._uses[id(context)] and (sent := self._sent.pop(id(context), None)):
                await wait_until_done(sent)

    async def _answer(self, question: str, document: SentDocument, run_id: str) -> Outcome:
        is_stored = self._options["storage"] is not None
        for restarts in range(self._max_restarts + 1):
            task = RunTask(
                key=f"{run_id}-{restarts}",
                rlm=self._pickled,
                question=question,
                document=document,
                run_id=run_id,
                sends_events=bool(self._emit),
                sent_at=time.monotonic(),
                patience=_PATIENCE if restarts else 0.0,
            )
            try:
                return await self._run(task)
            except ACTOR_ENDED as error:
                if not is_stored:
                    raise ClusterError(
                        f"the actor of run {run_id!r} ended; with RLM(storage=…), the run would "
                        "continue on another one"
                    ) from error
                if restarts == self._max_restarts:
                    raise ClusterError(
                        f"the actors of run {run_id!r} ended {restarts + 1} times; its calls are "
                        f"stored: ask again with run_ids=[{run_id!r}]"
                    ) from error
        raise AssertionError("the last attempt returns or raises")

    async def _run(self, task: RunTask) -> Outcome:
        actor, has_ended = await self._actors.take(), False
        begun: str | None = None  # the run whose end was not told
        try:
            async for reference in actor.run.remote(task):
                message = await reference
                if not isinstance(message, Event):
                    outcome: Outcome = message
                    return outcome
                self._emit(message)
                if isinstance(message, RunStarted) and message.parent is None:
                    begun = message.id
                elif isinstance(message, RunFinished | RunFailed):
                    begun = None
        except asyncio.CancelledError:
            with suppress(*ACTOR_ENDED):
                await finish_despite_cancel(actor.stop.remote(task.key))
            raise
        except ACTOR_ENDED:
            has_ended = True  # or it only could not be reached, and makes the run still
            actor.stop.options(max_task_retries=-1).remote(task.key)
            raise
        finally:
            if begun is not None:
                self._emit(RunFailed(id=begun, error="ClusterError: the run was left on its actor"))
            self._actors.release(actor, has_ended=has_ended)
        raise AssertionError("the last message is the outcome")

    def _document(self, context: Context) -> "asyncio.Task[SentDocument]":
        """The document in the object store, sent once for all questions over it."""
        if id(context) not in self._sent:
            self._sent[id(context)] = asyncio.ensure_future(self._send(context))
        return self._sent[id(context)]

    async def _send(self, context: Context) -> SentDocument:
        corpus = await corpus_of(context, self._options["limits"] or Limits())
        try:
            return await runtime.open_apart(SentDocument.of, corpus)
        finally:
            if corpus is not context:
                await finish_despite_cancel(runtime.close_apart(corpus.close))


def _items(
    questions: Iterable[tuple[str, Context]], run_ids: Iterable[str] | None
) -> list[tuple[str, Context, str]]:
    asked: list[Any] = list(questions)
    for number, each in enumerate(asked):
        if not isinstance(each, tuple) or len(each) != 2:
            raise InputError(
                f"questions[{number}] must be a pair of a question and a context, "
                f"not a {type(each).__name__}"
            )
    ids = [secrets.token_hex(8) for _ in asked] if run_ids is None else list(run_ids)
    if len(ids) != len(asked) or len(set(ids)) != len(ids):
        raise InputError("run_ids must have a different id for each question")
    return [
        (question, context, run_id) for (question, context), run_id in zip(asked, ids, strict=True)
    ]


def sendable(rlm: RLM[Any]) -> RLM[Any]:
    """The RLM for other processes. Its hook and its displays stay here."""
    rebuild, (kind, options) = rlm.__reduce__()
    here = {"on_event": None, "verbose": False, "show_progress": False}
    made: RLM[Any] = rebuild(kind, {**options, **here})
    return made


def pickled_for_actors(value: object, storage: object) -> bytes:
    """The value for other processes, with the machine to which its storage is bound.

    Raises:
        InputError: It cannot be pickled.
    """
    machine = storage.machine if isinstance(storage, Storage) else None
    try:
        pickled: bytes = cloudpickle.dumps((machine, cloudpickle.dumps(value)))
    except Exception as error:
        raise InputError(
            "this RLM cannot be sent to other machines, because a model, a tool or another option "
            f"cannot be pickled: {error}"
        ) from error
    return pickled
