"""What a run may spend, and what it has spent: one purse for a whole tree of runs, asked before each call and settled after it."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlm_integrations.lm import pricing
from rlm_integrations.records import Budget, CallRecord, Message, Usage
from rlm_integrations.result import Tally

Exhausted = Literal["budget_calls", "budget_tokens", "budget_cost", "budget_seconds"]

_CHARACTERS = 3  # a token has about four of English; counting less keeps the estimate above the truth
_PER_MESSAGE = 8  # tokens that a message takes beside its text


class BudgetSpentError(Exception):
    """There is nothing left to spend of one kind."""

    def __init__(self, reason: Exhausted) -> None:
        super().__init__(reason)
        self.reason = reason


def estimate(messages: Iterable[Message]) -> int:
    """How many tokens these messages take, rather too many than too few."""
    return sum(len(message.content) // _CHARACTERS + _PER_MESSAGE for message in messages)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was set aside for one call."""

    tokens: int
    cost: float
    model: str
    depth: int


class Purse:
    """Keeps the sum of what is spent and what is reserved within the budget.

    Where calls in flight may still give back what they do not use, a further call waits for them; where none can, it is refused.

    Args:
        budget: The bounds.
        reply_tokens: What is reserved for a reply.
        kept_back: Calls that only the closing request may use.
    """

    def __init__(self, budget: Budget, reply_tokens: int, *, kept_back: int = 1) -> None:
        self.budget = budget
        self.reply_tokens = reply_tokens
        self.tokens_kept_back = 0  # for the closing request; the loop says how many it would take
        self.spent_out: Exhausted | None = None
        self.closed = False  # whether only the closing request may still be made
        self._kept_back = kept_back if (budget.max_calls or 0) > kept_back else 0
        self._begun = time.monotonic()
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

    async def reserve(self, messages: Iterable[Message], model: str, depth: int, *, closing: bool = False) -> Reservation:
        """Set aside what a call may take.

        Args:
            messages: What the model is going to read.
            model: Its name, for its price.
            depth: Where in the tree the call stands.
            closing: Whether this is the run's closing request, which may use what was kept back for it.

        Raises:
            BudgetSpentError: It does not fit, and nothing in flight could make room.
        """
        if self.closed and not closing:
            raise BudgetSpentError(self.spent_out or "budget_calls")
        given = estimate(messages)
        tokens = given + self.reply_tokens
        cost = 0.0
        if self.budget.max_cost is not None:
            cost = pricing.cost(Usage(input_tokens=given, output_tokens=self.reply_tokens), model) or 0.0
        reservation = Reservation(tokens, cost, model, depth)
        while (lacking := self._lacking(reservation, closing=closing)) is not None:
            if not self._reserved or lacking in {"budget_calls", "budget_seconds"}:
                self.spent_out = self.spent_out or lacking
                raise BudgetSpentError(lacking)
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()
                raise
        self._calls += 1
        self._reserved.append(reservation)
        return reservation

    def _lacking(self, wanted: Reservation, *, closing: bool) -> Exhausted | None:
        budget = self.budget
        if budget.max_calls is not None and self._calls + 1 > budget.max_calls - (0 if closing else self._kept_back):
            return "budget_calls"
        if budget.max_tokens is not None:
            held = self._tokens + sum(each.tokens for each in self._reserved) + (0 if closing else self.tokens_kept_back)
            if held + wanted.tokens > budget.max_tokens:
                return "budget_tokens"
        if budget.max_cost is not None and self._cost + sum(each.cost for each in self._reserved) + wanted.cost > budget.max_cost:
            return "budget_cost"
        left = self.seconds_left()
        return "budget_seconds" if left is not None and left <= 0 else None

    def settle(self, reservation: Reservation, record: CallRecord | None) -> None:
        """Replace what was set aside by what the call took. Without a record it was cancelled, and counts as a call that took nothing."""
        self._reserved.remove(reservation)
        self._wake()
        usage = record.usage if record is not None else Usage()
        if usage is None and record is not None and record.error is not None:
            usage = Usage()
        if usage is None:  # what a provider does not count is taken to be what was set aside
            self._tokens += reservation.tokens
            self._cost += reservation.cost
        else:
            self._tokens += usage.input_tokens + usage.output_tokens
            if self.budget.max_cost is not None:
                self._cost += pricing.cost(usage, reservation.model) or 0.0
        self._settled.append((reservation.model, reservation.depth, usage))

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
