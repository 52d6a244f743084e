"""All model calls of a run: turns of the root, calls of code, and closing calls."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rlm_integrations._concurrency.deadlines import end_after
from rlm_integrations.engine.budget import BudgetSpentError, Charge, Exhausted, Purse
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.clock import RunClock
from rlm_integrations.engine.journal import Answer, Journal, keep_answer, wait_if_ended
from rlm_integrations.engine.metered import MeteredCall
from rlm_integrations.engine.prompt_size import PromptMeter
from rlm_integrations.engine.settings import Settings
from rlm_integrations.events import CallReplayed, Emitter, new_id
from rlm_integrations.lm.asker import ModelCaller
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.reply_cache import CachedCalls, digest_prompt
from rlm_integrations.lm.tokens import most_tokens
from rlm_integrations.records import BOUND, CallRecord, LLMError, Request


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The answer of a model call, as a journal stores it.

    Attributes:
        record: The record of the call; its times are in seconds since the run began.
        charge: The amount that the call took from the budget; None if it was refused.
        spent_out: The limit that was reached, if the call was refused.
    """

    record: CallRecord
    charge: Charge | None
    spent_out: Exhausted | None = None


class ModelCalls:
    """Makes the model calls of one run and its child runs.

    If the journal has the answer of a call, it is returned and charged, without a reservation, a
    slot or the limiter; an answer of the cache likewise, and it is free. Otherwise the call
    reserves its share of the budget, waits for one of the run's slots and for the model's limiter,
    and its answer is stored before it is returned.

    Args:
        settings: The options of the run.
        purse: Its budget.
        clock: Its clock.
        run_id: Its id; the limiter shares slots fairly between runs.
        emit: Receives the events.
        journal: Stores the answers, or None.
    """

    def __init__(
        self,
        settings: Settings,
        purse: Purse,
        clock: RunClock,
        run_id: str,
        emit: Emitter,
        journal: Journal | None,
    ) -> None:
        self._settings = settings
        self._purse = purse
        self._clock = clock
        self._run_id = run_id
        self._emit = emit
        self._journal = journal
        self._cache = None if settings.cache is None else CachedCalls(settings.cache, emit)
        self._slots = asyncio.Semaphore(settings.max_parallel_calls)
        self._callers: dict[tuple[int, str], ModelCaller] = {}
        self._accounts: dict[str, list[Charge]] = {}

    async def ask(self, call: CallId, lm: LM, request: Request, *, parent: str) -> CallRecord:
        """Call a model within the budget, at most `max_parallel_calls` at a time.

        If the budget cannot cover the call, the record holds an `LLMError` of type "budget".
        """
        if self._journal is None and self._cache is None:
            return (await self._answer(call, lm, request, parent)).record
        prompt, key = await self._identify(lm, request)
        if (known := self._recorded(call, lm, request, prompt, parent)) is not None:
            return known
        answer = await self._cached(call, lm, request, key, parent)
        if answer is None:
            answer = await self._answer(call, lm, request, parent)
        await self._keep(call, answer, prompt, key)
        return answer.record

    async def ask_root(
        self,
        call: CallId,
        request: Request,
        meter: PromptMeter,
        *,
        parent: str,
        closing: bool = False,
    ) -> CallRecord:
        """Call the root model for the next turn of a run. A failed call is not stored: a resumed
        run makes it again.

        Args:
            call: The turn.
            request: The conversation so far.
            meter: Measures the conversation.
            parent: The id of the run in the events.
            closing: Whether this is the closing call, which may use the budget reserved for it.

        Raises:
            BudgetSpentError: The budget cannot cover the call.
        """
        lm = self._settings.root
        prompt, key = await self._identify(lm, request)
        record = self._recorded(call, lm, request, prompt, parent)
        if record is None:
            answer = await self._cached(call, lm, request, key, parent)
            if answer is None:
                is_root = request.depth == 0
                asking = self._ask(
                    call, lm, request, parent, meter, closing=closing, is_root=is_root
                )
                try:
                    answer = await self._in_time(asking)
                except BudgetSpentError as spent:
                    self._unanswered(lm, request, spent, parent)
                    raise
            record = answer.record
            if record.error is None:
                await self._keep(call, answer, prompt, key)
        if record.error is None:
            meter.count(request.messages, record.saved or record.usage)
        return record

    def refuse(self, lm: LM, request: Request, why: str, *, parent: str) -> CallRecord:
        """The record of a call that is refused without being made."""
        return self._caller(lm, parent).fail(request, LLMError("budget", why))

    def forget(self, parent: str) -> None:
        """Drop the callers of a finished batch: a run may make many thousands."""
        for key in [key for key in self._callers if key[1] == parent]:
            del self._callers[key]

    # The charges of child runs, for the records of their answers.

    @contextmanager
    def account(self, run: str) -> Iterator[list[Charge]]:
        """Collect the charges of a child run and of its own child runs, for a journal."""
        if self._journal is None:
            yield []
            return
        charges = self._accounts[run] = list[Charge]()
        try:
            yield charges
        finally:
            del self._accounts[run]

    def charge_again(self, run: str, charges: Iterable[Charge]) -> None:
        """Count charges of the run at this path that are not those of a call made now."""
        for charge in charges:
            self._purse.charge(charge)
            self._note(run, charge)

    def _note(self, run: str, charge: Charge) -> None:
        for path, charges in self._accounts.items():
            if run == path or run.startswith(f"{path}.b"):
                charges.append(charge)

    # The journal.

    async def _identify(self, lm: LM, request: Request) -> tuple[str, str]:
        """The digest of the prompt for the journal, and the call's key in the cache; "" without."""
        if self._journal is None and self._cache is None:
            return "", ""
        digest = await digest_prompt(request.messages)
        # Also for calls that are replayed: equal requests are counted
        key = "" if self._cache is None else self._cache.key(lm, request, digest)
        return digest.hex(), key

    def _recorded(
        self, call: CallId, lm: LM, request: Request, prompt: str, parent: str
    ) -> CallRecord | None:
        """The recorded answer, or None. If the prompt of a call of code has changed, it is a new
        call: its prompt may derive from other answers. A turn keeps its answer, because the output
        of its blocks may differ in a replay.
        """
        answer = None if self._journal is None else self._journal.find(call)
        if answer is None or not isinstance(known := answer.value, ModelAnswer):
            return None
        is_same = answer.prompt == prompt
        if not is_same and request.role != "root":
            return None
        at = self._clock.at
        start, end = at(known.record.start), at(known.record.end)
        record = replace(known.record, start=start, end=end, replayed=True)
        if known.charge is not None:
            self.charge_again(call.run, (known.charge,))
        self._purse.spent_out = self._purse.spent_out or known.spent_out
        if self._emit:
            event = CallReplayed(
                id=new_id("call"),
                parent=parent,
                model=lm.name,
                request=request,
                record=record,
                same_prompt=is_same,
            )
            self._emit(event)
        return record

    async def _keep(self, call: CallId, answer: ModelAnswer, prompt: str, key: str) -> None:
        since, record = self._clock.since, answer.record
        if self._journal is not None:
            kept = replace(record, start=since(record.start), end=since(record.end))
            value = replace(answer, record=kept)
            await keep_answer(self._journal, call, Answer(value, prompt=prompt))
        if self._cache is not None:  # after the journal, which must not miss it
            await self._cache.keep(key, record)

    # The cache.

    async def _cached(
        self, call: CallId, lm: LM, request: Request, key: str, parent: str
    ) -> ModelAnswer | None:
        """The answer that the cache has, or None."""
        if self._cache is None:
            return None
        record = await self._cache.find(lm, request, key, parent=parent)
        if record is None:
            return None
        charge = Charge.of_cached(lm.name, request.depth)
        self.charge_again(call.run, (charge,))
        return ModelAnswer(record, charge)

    # The call itself.

    def _unanswered(
        self, lm: LM, request: Request, spent: BudgetSpentError, parent: str
    ) -> CallRecord:
        """The record of a call that the budget ended. If it was not made, its events are sent."""
        if not spent.was_asked:
            return self.refuse(lm, request, str(spent), parent=parent)
        now = time.monotonic()
        return CallRecord(reply=LLMError("budget", str(spent)), model=lm.name, start=now, end=now)

    async def _answer(self, call: CallId, lm: LM, request: Request, parent: str) -> ModelAnswer:
        """The answer of a call of code, also if the budget does not cover it."""
        try:
            return await self._in_time(self._ask(call, lm, request, parent, PromptMeter()))
        except BudgetSpentError as spent:
            record = self._unanswered(lm, request, spent, parent)
            return ModelAnswer(record, spent.charge, self._purse.spent_out)

    def _in_time(self, asking: Coroutine[Any, Any, ModelAnswer]) -> Awaitable[ModelAnswer]:
        left = self._purse.seconds_left()
        return asking if left is None else self._ended_after(left, asking)

    async def _ended_after(
        self, left: float, asking: Coroutine[Any, Any, ModelAnswer]
    ) -> ModelAnswer:
        try:
            async with asyncio.timeout(None) as timeout:
                end_after(timeout, left)
                return await asking
        except TimeoutError:
            self._purse.spent_out = self._purse.spent_out or "budget_seconds"
            raise BudgetSpentError(
                "budget_seconds", "the run's time is over", was_asked=True
            ) from None

    async def _ask(
        self,
        call: CallId,
        lm: LM,
        request: Request,
        parent: str,
        meter: PromptMeter,
        *,
        closing: bool = False,
        is_root: bool = False,
    ) -> ModelAnswer:
        purse = self._purse
        tokens = await meter.most_tokens(request.messages) if purse.limits_replies else 0
        if purse.limits_replies and request.schema is not None:  # it is a part of the prompt
            tokens += most_tokens(str(request.schema))
        own = getattr(lm, "reply_tokens", None)
        reservation = await purse.reserve(
            tokens, lm.name, request.depth, closing=closing, is_root=is_root, own_limit=own
        )
        record: CallRecord | None = None
        caller = self._caller(lm, parent)
        try:
            if self._journal is not None:
                await wait_if_ended(self._journal)
            async with self._slots:
                if purse.limits_replies:
                    most = reservation.reply_tokens  # so that the call stays within it
                    bounded = replace(
                        request, params={**request.params, BOUND: most}, reply_tokens=most
                    )
                    metered = MeteredCall(lm, purse, reservation)
                    record = await caller.ask(bounded, complete=metered.complete)
                else:
                    record = await caller.ask(request)
        finally:
            several = getattr(lm, "is_several", False)  # a `SeveralModels`, without its slow check
            charge = purse.settle(reservation, record, is_several=several)
            self._note(call.run, charge)
        if reservation.lacking is not None:
            raise BudgetSpentError(
                reservation.lacking,
                "the budget does not cover a retry of this call",
                was_asked=True,
                charge=charge,
            )
        return ModelAnswer(record, charge)

    def _caller(self, lm: LM, parent: str) -> ModelCaller:
        key = (id(lm), parent)
        if (caller := self._callers.get(key)) is None:
            caller = self._callers[key] = ModelCaller(
                lm,
                group=self._run_id,
                retry=self._settings.retry,
                timeout=self._settings.limits.call_seconds,
                emit=self._emit,
                parent=parent,
            )
        return caller
