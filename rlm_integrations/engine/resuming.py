"""Goes on with a stored run, in this or another process."""

import time
from collections.abc import Sequence
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import acquire, finish_despite_cancel
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.answering import Answering, corpus_of, release
from rlm_integrations.engine.clock import RunClock
from rlm_integrations.engine.run_record import setup_of
from rlm_integrations.engine.run_storage import KeptRun, StoredRun
from rlm_integrations.engine.stored_journal import StoredJournal
from rlm_integrations.engine.tree import RunStart
from rlm_integrations.errors import InputError
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import RunSetup

# Options that must be the same: with others, the run's code would do something else
_FIXED = ("max_depth", "store_mode", "sandbox", "tools", "output_type")


async def resume(answering: Answering, run_id: str, context: object) -> RLMResult[Any]:
    """The result of a stored run: the stored one if it has ended, else it goes on. No call whose
    answer is stored is made again.

    Args:
        answering: Answers with the options that the run began with.
        run_id: The run.
        context: Its document, or None if the storage has it.

    Raises:
        InputError: No run has this id; or the models, options or document are others.
        StorageError: Another process has it.
    """
    storage = answering.settings.storage
    if storage is None:
        raise InputError('resume needs a storage: RLM(…, storage=Storage("runs/"))')
    stored = await acquire(storage.take(run_id), _give_back)
    if stored.kept is None:
        return await _ended(answering, stored)
    corpus = None
    try:
        corpus = await _document(answering, stored, context)
        journal = await _journal(answering, run_id, stored, stored.kept, corpus)
        clock = RunClock(stored.setup.started, time.monotonic() - journal.elapsed)
        start = RunStart(run_id=run_id, clock=clock, journal=journal, kept=stored.kept)
        return await answering.answer(stored.setup.question, corpus, start=start)
    finally:
        await release(stored.kept)
        for each in {id(each): each for each in (corpus, stored.corpus)}.values():
            if each is not None and each is not context:
                await finish_despite_cancel(runtime.close_apart(each.close))


async def _give_back(stored: StoredRun) -> None:
    if stored.kept is not None:
        await release(stored.kept)
    if stored.corpus is not None:
        await runtime.close_apart(stored.corpus.close)


async def _journal(
    answering: Answering, run_id: str, stored: StoredRun, kept: KeptRun, corpus: Corpus
) -> StoredJournal:
    """The journal of a run that can go on with these options and this document."""
    if stored.setup.continues_session:
        raise InputError(
            f"run {run_id!r} is a later question of a session, which began with variables that are "
            "not stored: ask it again in a new session"
        )
    now = await setup_of(
        answering.settings,
        corpus,
        stored.setup.question,
        on_incomplete=answering.on_incomplete,
        started=stored.setup.started,
    )
    if different := differences(stored.setup, now):
        raise InputError(f"run {run_id!r} cannot be resumed: {'; '.join(different)}")
    return await runtime.offload(StoredJournal, kept, stored.records)


async def _ended(answering: Answering, stored: StoredRun) -> RLMResult[Any]:
    result: RLMResult[Any] = await runtime.offload(RLMResult.from_dict, stored.result or {})
    return await answering.typed_result(result)


async def _document(answering: Answering, stored: StoredRun, context: object) -> Corpus:
    if context is not None:
        return await corpus_of(context, answering.settings.limits)
    if stored.corpus is None:
        raise InputError(
            "this storage does not keep documents: pass the run's document, resume(run_id, context)"
        )
    return stored.corpus


def differences(stored: RunSetup, now: RunSetup) -> Sequence[str]:
    """What keeps a run from going on as it began, each as a sentence."""
    found = []
    if [source.sha256 for source in stored.sources] != [source.sha256 for source in now.sources]:
        found.append("its document is another one")
    if stored.models.root != now.models.root:
        found.append(f"its root model is {stored.models.root!r}, not {now.models.root!r}")
    if stored.models.subs != now.models.subs:
        names = (
            ", ".join(map(repr, each.values())) for each in (stored.models.subs, now.models.subs)
        )
        found.append("its sub-models are {}, not {}".format(*names))
    for name in _FIXED:
        before, after = stored.options.get(name), now.options.get(name)
        if before != after:
            found.append(f"its {name} is {before!r}, not {after!r}")
    return found
