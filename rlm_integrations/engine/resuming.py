"""Goes on with a stored run, in this or another process."""

import time
from dataclasses import replace
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import acquire, finish_despite_cancel
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.answering import Answering, corpus_of, release
from rlm_integrations.engine.clock import RunClock
from rlm_integrations.engine.replaying import rebuild
from rlm_integrations.engine.run_record import differences, setup_of
from rlm_integrations.engine.run_storage import StoredRun
from rlm_integrations.engine.stored_journal import StoredJournal
from rlm_integrations.engine.tree import RunStart
from rlm_integrations.errors import InputError, RunExistsError
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import check_run_id
from rlm_integrations.store import SharedStore


async def answer_as(
    answering: Answering, run_id: str, question: str, context: object
) -> RLMResult[Any]:
    """The result of a question's run under this id. If the storage has the run, it is not made
    again: its stored result is returned, or it goes on.

    Args:
        answering: Answers with the options of the run.
        run_id: The id.
        question: The question.
        context: The document.

    Raises:
        InputError: The stored run has another question, document, model or other option.
        StorageError: Another process has it.
    """
    start = RunStart(run_id=check_run_id(run_id))
    if answering.settings.storage is None:
        return await answering.answer(question, context, start=start)
    settings = answering.settings
    corpus = await corpus_of(context, settings.limits, settings.storage)
    try:
        return await answering.answer(question, corpus, start=start)
    except RunExistsError:
        return await resume(answering, run_id, corpus, question=question)
    finally:
        if corpus is not context:
            await finish_despite_cancel(runtime.close_apart(corpus.close))


async def resume(
    answering: Answering, run_id: str, context: object, *, question: str | None = None
) -> RLMResult[Any]:
    """The result of a stored run: the stored one if it has ended, else it goes on. No call whose
    answer is stored is made again.

    Args:
        answering: Answers with the options that the run began with.
        run_id: The run.
        context: Its document, or None if the storage has it.
        question: Its question, if it is to be checked, and with it the document of a run that has
            ended.

    Raises:
        InputError: No run has this id; or the models, options or document are others.
        StorageError: Another process has it.
    """
    storage = answering.settings.storage
    if storage is None:
        raise InputError('resume needs a storage: RLM(…, storage=Storage("runs/"))')
    stored = await acquire(storage.take(run_id), _give_back)
    corpus = repl = None
    try:
        if stored.kept is None and question is None:
            return await _ended(answering, stored)
        corpus = await _document(answering, stored, context)
        await _check(answering, run_id, stored, corpus, question)
        if stored.kept is None:
            return await _ended(answering, stored)
        if stored.setup.previous is not None:
            repl = await rebuild(answering, storage, stored.setup.previous, corpus)
        journal = await runtime.offload(StoredJournal, stored.kept, stored.records)
        clock = RunClock(stored.setup.started, time.monotonic() - journal.elapsed)
        start = RunStart(run_id=run_id, clock=clock, journal=journal, kept=stored.kept)
        return await answering.answer(stored.setup.question, corpus, repl=repl, start=start)
    finally:
        if repl is not None:
            await finish_despite_cancel(repl.close())
        if stored.kept is not None:
            await release(stored.kept)
        for each in {id(each): each for each in (corpus, stored.corpus)}.values():
            if each is not None and each is not context:
                await finish_despite_cancel(runtime.close_apart(each.close))


async def _give_back(stored: StoredRun) -> None:
    if stored.kept is not None:
        await release(stored.kept)
    if stored.corpus is not None:
        await runtime.close_apart(stored.corpus.close)


async def _check(
    answering: Answering, run_id: str, stored: StoredRun, corpus: Corpus, question: str | None
) -> None:
    """Check that the run can go on, or its result be returned, with this question, this document
    and these options.
    """
    now = await setup_of(
        answering.settings,
        corpus,
        stored.setup.question if question is None else question,
        on_incomplete=answering.on_incomplete,
        started=stored.setup.started,
    )
    if different := differences(stored.setup, now, has_ended=stored.kept is None):
        refused = "cannot be resumed" if question is None else "is stored, but as another one"
        raise InputError(f"run {run_id!r} {refused}: {'; '.join(different)}")


async def _ended(answering: Answering, stored: StoredRun) -> RLMResult[Any]:
    result: RLMResult[Any] = await runtime.offload(RLMResult.from_dict, stored.result or {})
    store: object = answering.settings.store
    if isinstance(store, SharedStore):  # a result has only its name
        result = replace(result, store=store)
    return await answering.stored_result(result)


async def _document(answering: Answering, stored: StoredRun, context: object) -> Corpus:
    if context is not None:
        settings = answering.settings
        return await corpus_of(context, settings.limits, settings.storage)
    if stored.corpus is None:
        raise InputError(
            "this storage does not keep documents: pass the run's document, resume(run_id, context)"
        )
    return stored.corpus
