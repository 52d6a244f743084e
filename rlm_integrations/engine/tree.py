"""What all runs of one tree share: the models, the purse, the store, the document, and the one way
to ask a model.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.engine.budget import BudgetSpentError, MeteredLM, PromptMeter, Purse
from rlm_integrations.engine.citations import verify_evidence
from rlm_integrations.engine.notebook import RecordRoom
from rlm_integrations.engine.threads import TreeThreads
from rlm_integrations.engine.tools import Tool
from rlm_integrations.errors import ContextError
from rlm_integrations.events import Emitter
from rlm_integrations.lm.asker import ModelCaller, Retry
from rlm_integrations.lm.base import LM, SeveralModels
from rlm_integrations.lm.limiter import Limiter, limiter_of
from rlm_integrations.prompt_pieces import PromptPieces, literal
from rlm_integrations.records import BOUND, Budget, CallRecord, Limits, LLMError, Request, SpanRef
from rlm_integrations.result import Citation
from rlm_integrations.sandbox.base import Sandbox
from rlm_integrations.store import SharedStore

NOTING = 4  # calls whose prompts are looked up in the document at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user has set; see `RLM`."""

    root: LM
    subs: Mapping[str, LM]
    max_iterations: int
    max_depth: int
    max_parallel_calls: int
    store_mode: str
    budget: Budget
    limits: Limits
    retry: Retry
    output_type: Any
    sandbox: Sandbox
    tools: Sequence[Tool]

    @property
    def sub(self) -> LM:
        """The model that code asks where it names none."""
        return next(iter(self.subs.values()))


class Tree:
    """One run and its children."""

    def __init__(
        self, settings: Settings, corpus: Corpus, run_id: str, emit: Emitter, begun: float
    ) -> None:
        self.settings = settings
        self.corpus = corpus
        self.run_id = run_id
        self.emit = emit
        self.store = (
            SharedStore(corpus, max_size=settings.limits.store_bytes)
            if settings.store_mode == "shared"
            else None
        )
        self.purse = Purse(settings.budget, settings.limits.reply_tokens, begun)
        self.begun = begun
        self.record_room = RecordRoom(settings.limits.recorded_chars)
        self.threads = TreeThreads(settings.limits.query_chars)
        self._child_runs: dict[int, asyncio.Semaphore] = {}
        # Prompts of templates are made, and all are noted, by so many calls at a time, however many
        # are in flight.
        self.filling, self.noting = (
            asyncio.Semaphore(settings.max_parallel_calls),
            asyncio.Semaphore(NOTING),
        )
        self._slots = asyncio.Semaphore(settings.max_parallel_calls)
        self._askers: dict[tuple[int, str], ModelCaller] = {}
        self._locator: Locator | None = None
        self._locating = asyncio.Lock()

    def since(self, at: float) -> float:
        """A time of `time.monotonic()` as seconds since the run began."""
        return max(0.0, at - self.begun)

    def child_run(self, depth: int) -> asyncio.Semaphore:
        """What a child run at this depth holds while it is under way.

        For each depth apart, because parents wait for their children.
        """
        return self._child_runs.setdefault(
            depth, asyncio.Semaphore(self.settings.limits.child_runs)
        )

    async def ask(self, lm: LM, request: Request, *, parent: str) -> CallRecord:
        """Ask a model within the budget, at most `max_parallel_calls` at a time.

        What the budget does not bear is a failed call of type "budget".
        """
        try:
            return await self._ask_in_time(
                lm, request, parent, PromptMeter(), closing=False, is_root=False
            )
        except BudgetSpentError as spent:
            return self._unanswered(lm, request, spent, parent)

    async def ask_root(
        self, request: Request, meter: PromptMeter, *, parent: str, closing: bool = False
    ) -> CallRecord:
        """Ask the root model for the next turn of a run; `closing` may use what was kept back for
        it.

        Raises:
            BudgetSpentError: The budget does not bear it.
        """
        lm = self.settings.root
        try:
            record = await self._ask_in_time(
                lm, request, parent, meter, closing=closing, is_root=request.depth == 0
            )
        except BudgetSpentError as spent:
            self._unanswered(lm, request, spent, parent)
            raise
        if record.error is None:
            meter.count(request.messages, record.usage)
        return record

    def refuse(self, lm: LM, request: Request, why: str, *, parent: str) -> CallRecord:
        """The record of a call that is not made."""
        return self._asker(lm, parent).fail(request, LLMError("budget", why))

    def _unanswered(
        self, lm: LM, request: Request, spent: BudgetSpentError, parent: str
    ) -> CallRecord:
        """The record of a call that the budget ended, with its events unless it has some."""
        if not spent.was_asked:
            return self.refuse(lm, request, str(spent), parent=parent)
        now = time.monotonic()
        return CallRecord(reply=LLMError("budget", str(spent)), model=lm.name, start=now, end=now)

    async def _ask_in_time(
        self,
        lm: LM,
        request: Request,
        parent: str,
        meter: PromptMeter,
        *,
        closing: bool,
        is_root: bool,
    ) -> CallRecord:
        left = self.purse.seconds_left()
        if left is None:  # as most runs have it, and some make thousands of calls
            return await self._ask(lm, request, parent, meter, closing=closing, is_root=is_root)
        try:
            async with asyncio.timeout(left):
                return await self._ask(lm, request, parent, meter, closing=closing, is_root=is_root)
        except TimeoutError:
            self.purse.spent_out = self.purse.spent_out or "budget_seconds"
            raise BudgetSpentError(
                "budget_seconds", "the run's time is over", was_asked=True
            ) from None

    async def _ask(
        self,
        lm: LM,
        request: Request,
        parent: str,
        meter: PromptMeter,
        *,
        closing: bool,
        is_root: bool,
    ) -> CallRecord:
        purse = self.purse
        given = await meter.most_tokens(request.messages) if purse.limits_replies else 0
        own = getattr(lm, "reply_tokens", None)
        reservation = await purse.reserve(
            given, lm.name, request.depth, closing=closing, is_root=is_root, own_bound=own
        )
        record: CallRecord | None = None
        try:
            async with self._slots:
                if purse.limits_replies:
                    # So that what is reserved holds.
                    most = reservation.reply_tokens
                    bounded = replace(
                        request, params={**request.params, BOUND: most}, reply_tokens=most
                    )
                    metered = MeteredLM(lm, purse, reservation)
                    record = await self._new_asker(metered, limiter_of(lm), parent).ask(bounded)
                else:
                    record = await self._asker(lm, parent).ask(request)
        finally:
            purse.settle(
                reservation, record, is_several=isinstance(lm, SeveralModels) and lm.is_several
            )
        if reservation.lacking is not None:
            raise BudgetSpentError(
                reservation.lacking,
                "the run's budget bears no further try of this call",
                was_asked=True,
            )
        return record

    def _asker(self, lm: LM, parent: str) -> ModelCaller:
        key = (id(lm), parent)
        if key not in self._askers:
            self._askers[key] = self._new_asker(lm, limiter_of(lm), parent)
        return self._askers[key]

    def forget(self, parent: str) -> None:
        """Drop what is kept for the calls of a batch that is over; a run may make many thousands."""
        for key in [key for key in self._askers if key[1] == parent]:
            del self._askers[key]

    def _new_asker(self, lm: LM, limiter: Limiter, parent: str) -> ModelCaller:
        timeout = self.settings.limits.call_seconds
        return ModelCaller(
            lm,
            group=self.run_id,
            limiter=limiter,
            retry=self.settings.retry,
            timeout=timeout,
            emit=self.emit,
            parent=parent,
        )

    async def pieces(self, prompts: Sequence[str]) -> list[PromptPieces]:
        """The prompts as words of their own and spans of the document, found off the event loop.

        Where the document's file has changed they are words alone: they were paid for, so the
        record keeps them.
        """
        try:
            async with self._locating:
                if self._locator is None:
                    self._locator = await self.threads.free(Locator, self.corpus)
            return await self.threads.free(_locate, self._locator, prompts)
        except ContextError:
            return await self.threads.free(list, map(literal, prompts))

    async def verify_evidence(
        self, evidence: Iterable[Any], corpus: Corpus, ambiguous: Collection[SpanRef] = ()
    ) -> tuple[list[Citation], int]:
        """The evidence that holds, and how many pieces do not; see `citations.verified`.

        It ends with the run's time.
        """
        left = self.purse.seconds_left()
        until = None if left is None else time.monotonic() + left
        return await self.threads.free(
            verify_evidence, evidence, corpus, self.corpus, ambiguous, until=until
        )

    async def close(self) -> None:
        """End what threads still read, and let go of the document's index: it may be large, and the
        garbage collector comes late.
        """
        self.threads.close()
        if self._locator is not None:
            await finish_despite_cancel(runtime.close_apart(setattr, self, "_locator", None))


def _locate(locator: Locator, prompts: Sequence[str]) -> list[PromptPieces]:
    located: list[PromptPieces] = []
    last = None
    for prompt in prompts:
        spend(len(prompt))
        located.append(locator.locate(prompt, after=last))
        spans = located[-1].spans
        last = spans[-1] if spans else last
    return located
