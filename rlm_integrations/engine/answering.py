"""One question answered from its beginning to its record: the run and everything around it."""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Literal

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import acquire, finish_despite_cancel
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.lazy import LazyCorpus, build_lazily
from rlm_integrations.engine.answer import AnswerType, InvalidAnswerError
from rlm_integrations.engine.children import spawner
from rlm_integrations.engine.loop import Run
from rlm_integrations.engine.preparing import prepare_run
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.run_record import make_result, setup_of
from rlm_integrations.engine.run_storage import KeptRun
from rlm_integrations.engine.settings import Settings
from rlm_integrations.engine.single import answer_at_once
from rlm_integrations.engine.stored_journal import StoredJournal
from rlm_integrations.engine.threads import build_corpus
from rlm_integrations.engine.tree import RunStart, Tree
from rlm_integrations.errors import (
    BudgetExceededError,
    IncompleteError,
    InputError,
    ModelError,
    SandboxError,
    StorageError,
    check_text,
)
from rlm_integrations.events import Emitter, RunFailed, RunFinished, RunStarted, new_id
from rlm_integrations.extraction.extractor import KeepsTexts
from rlm_integrations.lm import pricing
from rlm_integrations.records import Limits
from rlm_integrations.result import RLMResult, encode_result
from rlm_integrations.run_setup import PreviousRun, RunSetup

logger = logging.getLogger("rlm_integrations")


async def corpus_of(context: object, limits: Limits, storage: object = None) -> Corpus:
    """The document of a context; see `Corpus.build`. The storage, if any, keeps the texts of files."""
    if isinstance(context, Corpus):
        return context
    texts = storage.texts if isinstance(storage, KeepsTexts) else None
    return await build_corpus(
        Corpus.build, context, encoding=limits.encoding, errors=limits.decode_errors, texts=texts
    )


async def corpus_for(context: object, settings: Settings) -> Corpus:
    """The document of a context for runs with these options, which may read large folders when code
    asks for them.
    """
    limits = settings.limits
    if isinstance(context, Corpus) or not settings.reads_on_demand:
        return await corpus_of(context, limits, settings.storage)
    return await build_corpus(
        build_lazily,
        context,
        encoding=limits.encoding,
        errors=limits.decode_errors,
        least_bytes=limits.single_call_below,
    )


class Answering:
    """Answers one question with these options.

    Args:
        settings: The options.
        typed: The type of the answer.
        emit: Receives the events.
        on_incomplete: What happens if the run ends without a final answer; see `RLM`.
    """

    def __init__(
        self,
        settings: Settings,
        typed: AnswerType,
        emit: Emitter,
        *,
        on_incomplete: Literal["partial", "raise"],
    ) -> None:
        self.settings = settings
        self.on_incomplete: Literal["partial", "raise"] = on_incomplete
        self._typed = typed
        self._emit = emit

    async def answer(
        self,
        query: str,
        context: object,
        *,
        repl: LazySession | None = None,
        start: RunStart | None = None,
    ) -> RLMResult[Any]:
        """The result of the run.

        Args:
            query: The question.
            context: The document.
            repl: The REPL of a session, whose document is used.
            start: Which run this is; a new one by default.

        Raises:
            RunExistsError: The storage has a run of this id.
            RLMError: See `RLM.acompletion`.
        """
        start = start or RunStart(run_id=secrets.token_hex(8))
        query = checked_question(query)
        settings = self.settings
        await prepare_run(settings)
        await check_prices(settings)
        corpus = await corpus_for(context, settings) if repl is None else repl.corpus
        if isinstance(corpus, LazyCorpus) and not settings.reads_on_demand:
            await runtime.offload(corpus.read_all)
        setup = await setup_of(
            settings,
            corpus,
            query,
            on_incomplete=self.on_incomplete,
            started=start.clock.started,
            previous=None if repl is None else repl.previous,
        )
        if settings.store is not None:
            await runtime.offload(settings.store.bind, corpus)
        if settings.storage is not None and start.kept is None:
            begin = settings.storage.begin(start.run_id, setup, corpus)
            kept = await acquire(begin, release)
            start = replace(start, journal=StoredJournal(kept), kept=kept)
        try:
            result = await self._run(query, context, corpus, setup, repl, start)
        finally:
            if start.kept is not None:
                await release(start.kept)
        self._check_complete(result)
        return result

    async def _run(
        self,
        query: str,
        context: object,
        corpus: Corpus,
        setup: RunSetup,
        repl: LazySession | None,
        start: RunStart,
    ) -> RLMResult[Any]:
        """The run itself, with its events; its result is stored before it is returned."""
        emit, settings = self._emit, self.settings
        tree = Tree(settings, corpus, start, emit)
        own = LazySession(corpus) if repl is None else repl
        run = self._root(tree, own, query)
        begun = replace(make_result(tree, run, setup, {}, {}), stop_reason="running", partial=None)
        emit(
            RunStarted(
                id=run.id,
                query=query,
                path="r",
                depth=0,
                characters=corpus.characters,
                result=begun,
            )
        )
        layers: Mapping[str, str] = {}
        try:
            async with AsyncExitStack() as cleanup:
                if repl is None:
                    cleanup.push_async_callback(own.end, keep=context)
                cleanup.push_async_callback(tree.close)
                await tree.restore_store()
                await _answer_question(tree, run, own)
                layers = own.session.layers if own.session is not None else {}
            result = make_result(tree, run, setup, layers, own.recorded)
            await _store_result(start.kept, result)
        except BaseException as error:
            own.history = run.history(own.history, is_answered=False)
            run.settle()
            message = _note_failure(run, error)
            result = make_result(tree, run, setup, layers, own.recorded)
            own.previous = _as_previous(start, result)
            try:
                await _store_result(start.kept, result)
            except StorageError:  # the error that ended the run is raised
                logger.exception("the result of run %s could not be stored", result.run_id)
            emit(
                RunFinished(id=run.id, result=result)
                if isinstance(error, asyncio.CancelledError)
                else RunFailed(id=run.id, error=message, result=result)
            )
            raise
        own.history = run.history(own.history)
        own.previous = _as_previous(start, result)
        emit(RunFinished(id=run.id, result=result))
        return result

    async def replay(
        self, query: str, repl: LazySession, start: RunStart, *, was_answered: bool
    ) -> None:
        """Run an earlier question of a session again, from its journal alone, so that the REPL and
        the conversation are as it left them. No call is made.

        Args:
            query: Its question.
            repl: The REPL, as the question before it left it.
            start: The run, with its journal.
            was_answered: Whether it ended by itself.
        """
        # Neither its time nor a cached answer may change how far it goes, nor it a store
        budget = replace(self.settings.budget, max_seconds=None)
        settings = replace(self.settings, budget=budget, cache=None, store=None)
        tree = Tree(settings, repl.corpus, start, Emitter())
        run = self._root(tree, repl, query)
        try:
            await _answer_question(tree, run, repl)
        finally:
            try:
                repl.history = run.history(repl.history, is_answered=was_answered)
            finally:
                await tree.close()

    def _root(self, tree: Tree, repl: LazySession, query: str) -> Run:
        return Run(
            tree,
            repl,
            query=query,
            path="r",
            depth=0,
            typed=self._typed,
            spawn=spawner(tree, 0, repl.corpus),
            worker="root",
        )

    async def stored_result(self, result: RLMResult[Any]) -> RLMResult[Any]:
        """A stored result, with its answer as a value of its type again, and with the first and the
        last event of its run.

        Raises:
            InputError: The answer is not of this type.
            IncompleteError: See `RLM.acompletion`.
        """
        if self._typed.schema is not None and result.answer is not None:
            try:
                answer = await runtime.offload(self._typed.read, result.answer)
            except InvalidAnswerError as error:
                raise InputError(
                    f"the answer of run {result.run_id!r} has another type: {error}"
                ) from error
            result = replace(result, answer=answer)
        id_, characters = new_id("run"), sum(source.length for source in result.sources)
        self._emit(
            RunStarted(id=id_, query=result.question, path="r", depth=0, characters=characters)
        )
        self._emit(RunFinished(id=id_, result=result))
        self._check_complete(result)
        return result

    def _check_complete(self, result: RLMResult[Any]) -> None:
        """Raise for a run without a final answer, if that is wanted."""
        raises = self.on_incomplete == "raise"
        if result.stop_reason.startswith("budget"):
            if raises or self.settings.budget.on_exceeded == "raise":
                raise BudgetExceededError(
                    f"the run's budget is spent ({result.stop_reason}); "
                    "the error has the partial result",
                    result=result,
                )
        elif raises and result.stop_reason != "final":
            why = (
                result.stop_reason
                if result.error is None
                else f"{result.stop_reason}: {result.error}"
            )
            raise IncompleteError(
                f"the run ended without a final answer ({why}); the error has the partial result",
                result=result,
            )


async def check_prices(settings: Settings) -> None:
    """A cost limit needs prices before the first call.

    Raises:
        InputError: A model has no known price.
    """
    if settings.budget.max_cost is None:
        return
    await pricing.prepare()
    for lm in (settings.root, *settings.subs.values()):
        if not pricing.has_price(lm.name):
            raise InputError(
                f"max_cost cannot hold: there is no known price of {lm.name!r}; "
                "limit max_tokens or max_calls instead"
            )


async def _answer_question(tree: Tree, run: Run, repl: LazySession) -> None:
    """Answer the question of a run, with one call or with its REPL."""
    corpus = tree.corpus
    at_once = corpus.characters < tree.settings.limits.single_call_below
    at_once = at_once and not isinstance(corpus, LazyCorpus)
    if not at_once or not await answer_at_once(tree, run, repl):
        await run.run(() if at_once else repl.history)


def _as_previous(start: RunStart, result: RLMResult[Any]) -> PreviousRun | None:
    """A run as the next question of its session will know it; None if it is not stored."""
    if not isinstance(start.journal, StoredJournal):
        return None
    return PreviousRun(
        run_id=result.run_id,
        records=start.journal.count,
        stop_reason=result.stop_reason,
        elapsed=result.elapsed,
    )


async def _store_result(kept: KeptRun | None, result: RLMResult[Any]) -> None:
    if kept is not None:
        encoded = await finish_despite_cancel(runtime.offload(encode_result, result))
        await finish_despite_cancel(kept.finish(result.stop_reason, encoded))


async def release(kept: KeptRun) -> None:
    """Release a run, if it was not finished, so that others can resume it. If the storage cannot be
    reached, its lease ends by itself.
    """
    try:
        await finish_despite_cancel(kept.release())
    except StorageError as error:
        logger.warning("run %s could not be released: %s", kept.run_id, error)


def _note_failure(run: Run, error: BaseException) -> str:
    """Record how the run failed; the message of its event."""
    message = f"{type(error).__name__}: {error}"
    outcome = run.outcome
    outcome.stop_reason, outcome.error = "failed", message
    if isinstance(error, asyncio.CancelledError):
        outcome.stop_reason, outcome.error = "cancelled", None
    elif isinstance(error, ModelError):
        outcome.stop_reason, outcome.error = "model_error", str(error)
    elif isinstance(error, SandboxError):
        outcome.stop_reason, outcome.error = "sandbox_lost", str(error)
    return message


def checked_question(given: object) -> str:
    """The question.

    Raises:
        InputError: It is not a string, is empty, or is not valid Unicode.
    """
    return check_text("the question", given)
