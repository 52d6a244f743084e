"""Sessions that are rebuilt: their earlier questions run again from their records."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Any, Final

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.answering import Answering, corpus_of
from rlm_integrations.engine.clock import RunClock
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.run_record import differences, setup_of
from rlm_integrations.engine.run_storage import RunStorage, StoredRun
from rlm_integrations.engine.stored_journal import PastJournal
from rlm_integrations.engine.tree import RunStart
from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.run_setup import PreviousRun

# The stop reasons of questions that were interrupted
_INTERRUPTED: Final = frozenset({"cancelled", "failed"})
# How long the replay of an interrupted question may use no answer while there are more: its code
# may have depended on time or chance
_PATIENCE_SECONDS: Final = 60.0
_KILLED_SECONDS: Final = 5.0  # after the last record of a question whose process was killed
Chain = Sequence[tuple[PreviousRun, StoredRun]]


async def reopen(answering: Answering, run_id: str, context: object) -> LazySession:
    """The REPL and the conversation of a session as they were after a question.

    Args:
        answering: Answers with the options of the session.
        run_id: The run of the question. One that was interrupted is not gone on with.
        context: Its document, or None if the storage has it.

    Raises:
        InputError: No run has this id; or the models, options or document are others.
        StorageError: A process has the run, or it cannot be read.
    """
    storage = answering.settings.storage
    if storage is None:
        raise InputError('a session is resumed from a storage: RLM(…, storage=Storage("runs/"))')
    stored = await storage.past(run_id)
    last = _as_it_is(run_id, stored)
    if context is None:
        corpus = await runtime.offload(storage.document, run_id)
        if corpus is None:
            raise InputError(
                "this storage does not keep documents: pass the session's document, "
                "resume_session(run_id, context)"
            )
    else:
        corpus = await corpus_of(context, answering.settings.limits, storage)
    try:
        return await rebuild(answering, storage, last, corpus)
    except BaseException:
        if corpus is not context:
            await finish_despite_cancel(runtime.close_apart(corpus.close))
        raise


async def rebuild(
    answering: Answering, storage: RunStorage, last: PreviousRun, corpus: Corpus
) -> LazySession:
    """The REPL and the conversation of a session after its last question. Nothing is called: the
    questions are answered from their records.

    Raises:
        InputError: The models, options or document are others.
        StorageError: A question cannot be read.
    """
    chain = await _chain(storage, last)
    now = await setup_of(
        answering.settings, corpus, "", on_incomplete=answering.on_incomplete, started=time.time()
    )
    for previous, stored in chain:
        if different := differences(stored.setup, replace(now, question=stored.setup.question)):
            raise InputError(
                f"run {previous.run_id!r}, an earlier question of the session, cannot be "
                f"replayed: {'; '.join(different)}"
            )
    repl = LazySession(corpus, is_kept=True)
    try:
        for previous, stored in chain:
            await _replay(answering, previous, stored, repl)
            repl.previous = previous
    except BaseException:
        await repl.close()
        raise
    return repl


async def _chain(storage: RunStorage, last: PreviousRun) -> Chain:
    """The questions of a session up to the last one, the first one first."""
    chain: list[tuple[PreviousRun, StoredRun]] = []
    previous: PreviousRun | None = last
    while previous is not None:
        if previous.run_id in {each.run_id for each, _ in chain}:
            raise DamagedDataError(f"run {previous.run_id!r} is stored as a question before itself")
        try:
            stored = await storage.past(previous.run_id, previous.records)
        except InputError as error:
            raise InputError(f"an earlier question of the session is missing: {error}") from error
        chain.append((previous, stored))
        previous = stored.setup.previous
    return chain[::-1]


async def _replay(
    answering: Answering, previous: PreviousRun, stored: StoredRun, repl: LazySession
) -> None:
    """Run a question again until it ends, or until its records end."""
    journal = await runtime.offload(PastJournal, stored.records)
    clock = RunClock(stored.setup.started, time.monotonic() - journal.elapsed)
    start = RunStart(run_id=previous.run_id, clock=clock, journal=journal)
    is_interrupted = previous.stop_reason in _INTERRUPTED
    replaying = asyncio.ensure_future(
        answering.replay(stored.setup.question, repl, start, was_answered=not is_interrupted)
    )
    journal.on_end = replaying.cancel
    timer = _CancelTimer(replaying, journal, previous.elapsed) if is_interrupted else None
    try:
        await asyncio.wait([replaying])
    finally:
        if timer is not None:
            timer.stop()
        replaying.cancel()
        await wait_until_done(replaying)
    if not replaying.cancelled() and (error := replaying.exception()) is not None:
        raise error


class _CancelTimer:
    """Cancels the replay of a question that was cancelled while its code computed: no call shows
    when. It may compute for as long as the question had taken after its last answer was used.
    """

    def __init__(self, replaying: asyncio.Task[None], journal: PastJournal, elapsed: float) -> None:
        self._replaying = replaying
        self._journal = journal
        self._elapsed = elapsed
        self._timer: asyncio.TimerHandle | None = None
        journal.on_use = self._start
        self._start()

    def _start(self) -> None:
        self.stop()
        seconds = _PATIENCE_SECONDS if self._journal.unused else self._elapsed
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._replaying.cancel, context=Context())

    def stop(self) -> None:
        """Do not cancel it any more."""
        if self._timer is not None:
            self._timer.cancel()


def _as_it_is(run_id: str, stored: StoredRun) -> PreviousRun:
    """A run as the next question of its session knows it."""
    result: Mapping[str, Any] = stored.result or {}
    return PreviousRun(
        run_id=run_id,
        records=len(stored.records),
        stop_reason=str(result.get("stop_reason", "cancelled")),
        elapsed=float(result.get("elapsed", _KILLED_SECONDS)),
    )
