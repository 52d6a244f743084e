"""What a run may spend, and what it has spent: one purse for a whole tree of runs, asked before each call and settled after it."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlm_integrations.errors import ModelError
from rlm_integrations.lm import pricing
from rlm_integrations.lm.base import LM
from rlm_integrations.records import Budget, CallRecord, Completion, Message, Request, Usage
from rlm_integrations.result import Tally

Exhausted = Literal["budget_calls", "budget_tokens", "budget_cost", "budget_seconds"]

# A token has about four characters of English, two of code, and one of Chinese, which takes three bytes.
_BYTES = 3
_PER_MESSAGE = 8  # tokens that a message takes beside its text
_LEAST_REPLY = 256  # tokens; where no more are left for a reply, no call is made
# Failures for which no provider counts tokens: the request was not taken, or never came to the model.
_NOT_COUNTED = frozenset({"auth", "bad_request", "context_length", "input", "not_found", "overloaded", "quota", "rate_limit", "server"})


class BudgetSpentError(Exception):
    """There is nothing left to spend of one kind."""

    def __init__(self, reason: Exhausted) -> None:
        super().__init__(reason)
        self.reason = reason


def estimate(messages: Iterable[Message]) -> int:
    """How many tokens these messages take, rather too many than too few."""
    return sum(_bytes(message.content) // _BYTES + _PER_MESSAGE for message in messages)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@dataclass(slots=True, eq=False)
class Reservation:
    """What is set aside for one call.

    Attributes:
        model: Who is asked.
        depth: Where in the tree the call stands.
        tokens: Of the request and the reply, for one try.
        reply_tokens: How many of them the reply may have.
        cost: US dollars, for one try.
        uncounted: Tries so far for which the provider may want to be paid without having said how much.
    """

    model: str
    depth: int
    tokens: int
    reply_tokens: int
    cost: float
    uncounted: int = 0

    @property
    def tries(self) -> int:
        """How many tries are to be reckoned with."""
        return max(1, self.uncounted)


class Purse:
    """Keeps the sum of what is spent and what is reserved within the budget.

    Where calls in flight may still give back what they do not use, a further call waits for them; where none can, it gets a shorter reply,
    or is refused.

    Args:
        budget: The bounds.
        reply_tokens: How many tokens a reply may have.
        begun: When the run began, in seconds of `time.monotonic()`.

    Attributes:
        spent_out: What there was too little of, since a call was refused or the time was over.
    """

    def __init__(self, budget: Budget, reply_tokens: int, begun: float) -> None:
        self.budget = budget
        self.spent_out: Exhausted | None = None
        self._replies = [reply_tokens]  # bounds of a reply that are tried, longest first
        while self.limits_replies and self._replies[-1] >= 2 * _LEAST_REPLY:
            self._replies.append(self._replies[-1] // 2)
        self._calls_kept_back = 1 if (budget.max_calls or 0) > 1 else 0
        self._tokens_kept_back = 0
        self._begun = begun
        self._calls = 0
        self._tokens = 0
        self._cost = 0.0
        self._reserved: list[Reservation] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._settled: list[tuple[str, int, Usage | None]] = []

    @property
    def limits_replies(self) -> bool:
        """Whether replies need a bound of their own, so that what is reserved holds."""
        return self.budget.max_tokens is not None or self.budget.max_cost is not None

    def seconds_left(self) -> float | None:
        """Seconds until the time is spent, or None where there is no bound."""
        return None if self.budget.max_seconds is None else self.budget.max_seconds - (time.monotonic() - self._begun)

    def keep_back(self, tokens: int) -> None:
        """Keep so many tokens for the closing request, though never more than a quarter of all."""
        self._tokens_kept_back = min(tokens, (self.budget.max_tokens or 0) // 4)

    async def reserve(self, messages: Iterable[Message], model: str, depth: int, *, closing: bool = False) -> Reservation:
        """Set aside what a call may take.

        Args:
            messages: What the model is going to read.
            model: Its name, for its price.
            depth: Where in the tree the call stands.
            closing: Whether this is the root's closing request, which may use what was kept back for it.

        Raises:
            BudgetSpentError: It does not fit, and nothing in flight could make room.
        """
        given = estimate(messages) if self.limits_replies else 0
        while True:
            lacking: Exhausted | None = None
            for reply in self._replies:
                reservation = Reservation(model, depth, given + reply, reply, self._cost_of(given, reply, model))
                lacking = self._lacking(reservation, calls=1, closing=closing)
                if lacking is None:
                    self._calls += 1
                    self._reserved.append(reservation)
                    return reservation
                if self._reserved:
                    break
            if lacking in {"budget_calls", "budget_seconds"} or not self._reserved:
                self.spent_out = self.spent_out or lacking
                raise BudgetSpentError(lacking or "budget_calls")
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()
                raise

    def allows_another_try(self, reservation: Reservation) -> bool:
        """Whether a call whose tries so far may have to be paid may be tried again."""
        reservation.uncounted += 1
        lacking = self._lacking(None, calls=0, closing=True)
        reservation.uncounted -= 1
        self.spent_out = self.spent_out or lacking
        return lacking is None

    def settle(self, reservation: Reservation, record: CallRecord | None, *, is_several: bool = False) -> None:
        """Replace what was set aside by what the call took; what the provider did not count is taken to be what was set aside.

        Args:
            reservation: What was set aside.
            record: What became of the call, or None where it was cancelled.
            is_several: Whether the model stands for several: the one that answered is paid.
        """
        model = record.model if is_several and record is not None and record.error is None else reservation.model
        self._reserved.remove(reservation)
        self._tokens += reservation.uncounted * reservation.tokens
        self._cost += reservation.uncounted * reservation.cost
        usage = record.usage if record is not None and record.error is None else Usage()
        if usage is not None:
            self._tokens += usage.input_tokens + usage.output_tokens
            if self.budget.max_cost is not None:
                self._cost += pricing.cost(usage, model) or 0.0
        self._settled.append((model, reservation.depth, usage))
        self._wake()

    def _cost_of(self, given: int, reply: int, model: str) -> float:
        if self.budget.max_cost is None:
            return 0.0
        return pricing.cost(Usage(input_tokens=given, output_tokens=reply), model) or 0.0

    def exhausted(self) -> Exhausted | None:
        """What there is too little of for any further call, whatever calls in flight give back; None if there is enough."""
        lacking = self._lacking(None, calls=1, closing=False)
        return self.spent_out or (lacking if lacking in {"budget_calls", "budget_seconds"} or not self._reserved else None)

    def _lacking(self, wanted: Reservation | None, *, calls: int, closing: bool) -> Exhausted | None:
        """What there is too little of for what is reserved and this."""
        budget = self.budget
        if budget.max_calls is not None and self._calls + calls > budget.max_calls - (0 if closing else self._calls_kept_back):
            return "budget_calls"
        held = self._reserved if wanted is None else [*self._reserved, wanted]
        if budget.max_tokens is not None:
            tokens = self._tokens + sum(each.tokens * each.tries for each in held)
            if tokens > budget.max_tokens - (0 if closing else self._tokens_kept_back):
                return "budget_tokens"
        if budget.max_cost is not None and self._cost + sum(each.cost * each.tries for each in held) > budget.max_cost:
            return "budget_cost"
        left = self.seconds_left()
        return "budget_seconds" if left is not None and left <= 0 else None

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    @property
    def calls(self) -> int:
        """How many calls were made or are being made."""
        return self._calls

    def tally(self) -> Tally:
        """What was spent so far."""
        return Tally(tuple(self._settled), pricing.cost)


class Metered:
    """A model as one call asks it: every try is reckoned with, and none is made that the budget does not bear."""

    def __init__(self, lm: LM, purse: Purse, reservation: Reservation) -> None:
        self.name = lm.name
        self.context_window = lm.context_window
        self._lm = lm
        self._purse = purse
        self._reservation = reservation

    async def complete(self, request: Request) -> Completion:
        """The model's answer; see `LM.complete`."""
        if self._reservation.uncounted and not self._purse.allows_another_try(self._reservation):
            raise ModelError("the run's budget bears no further try", type="budget")
        self._reservation.uncounted += 1
        try:
            completion = await self._lm.complete(request)
        except ModelError as error:
            self._reservation.uncounted -= error.type in _NOT_COUNTED
            raise
        if getattr(completion, "usage", None) is not None:  # a model of the user's may return anything
            self._reservation.uncounted -= 1
        return completion
