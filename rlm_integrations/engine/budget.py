"""What a run may spend, and what it has spent: one purse for a whole tree of runs, asked before
each call and settled after it.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

from rlm_integrations.lm import pricing
from rlm_integrations.records import Budget, CallRecord, Usage
from rlm_integrations.spending import Spending

Exhausted = Literal["budget_calls", "budget_tokens", "budget_cost", "budget_seconds"]

_LEAST_REPLY = 256  # tokens; where no more are left for a reply, no call is made
_LEAST_PROMPT = 512  # tokens; where no more are left for a prompt, a run is over


@dataclass(slots=True, eq=False)
class Reservation:
    """What is set aside for one call.

    Attributes:
        model: Who is asked.
        depth: Where in the tree the call stands.
        tokens: Of the request and the reply, for one try.
        reply_tokens: How many of them the reply may have.
        cost: US dollars, for one try.
        uncounted: Tries so far for which the provider may want to be paid without having said how
            much.
        lacking: What there is too little of for a further try.
    """

    model: str
    depth: int
    tokens: int
    reply_tokens: int
    cost: float
    uncounted: int = 0
    lacking: Exhausted | None = None

    @property
    def tries(self) -> int:
        """How many tries are to be reckoned with."""
        return max(1, self.uncounted)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call took from the budget.

    Attributes:
        model: The model that was asked, or the one that answered for it.
        depth: The depth of the call.
        usage: Its tokens, or None if the provider did not count them.
        answering: The name by which the provider answered.
        tokens: What counts against the budget, with attempts that the provider did not count.
        cost: US dollars that count against the budget; 0 without a cost limit.
    """

    model: str
    depth: int
    usage: Usage | None
    answering: str
    tokens: int
    cost: float


class BudgetSpentError(Exception):
    """A call does not fit into what is left of the budget.

    Args:
        reason: Which limit is reached.
        message: What the call needs and what is left.
        was_asked: Whether the model was asked, and the call ended without an answer.
        charge: What the call took nevertheless.
    """

    def __init__(
        self,
        reason: Exhausted,
        message: str = "",
        *,
        was_asked: bool = False,
        charge: Charge | None = None,
    ) -> None:
        super().__init__(message or f"the run's budget is spent ({reason})")
        self.reason = reason
        self.was_asked = was_asked
        self.charge = charge


class Purse:
    """Keeps the sum of what is spent and what is reserved within the budget.

    Where calls in flight may still give back what they do not use, a further call waits for them;
    where none can, it gets a shorter reply, or is refused. A refused call fails alone; the budget
    is spent once no useful call fits any more.

    Args:
        budget: The bounds.
        reply_tokens: How many tokens a reply may have.
        begun: When the run began, in seconds of `time.monotonic()`.

    Attributes:
        spent_out: What there is too little of for any further call.
    """

    def __init__(self, budget: Budget, reply_tokens: int, begun: float) -> None:
        self.budget = budget
        self.spent_out: Exhausted | None = None
        self._reply_tokens = reply_tokens
        self._calls_kept_back = 1 if (budget.max_calls or 0) > 1 else 0
        self._tokens_kept_back = 0
        self._begun = begun
        self._calls = 0
        self._tokens = 0
        self._cost = 0.0
        # By the name of a model, tokens of a reply that was longer than its bound
        self._longest: dict[str, int] = {}
        self._answering: dict[str, str] = {}  # by the name of a model, the one that answered last
        self._reserved: list[Reservation] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._charges: list[Charge] = []

    @property
    def limits_replies(self) -> bool:
        """Whether replies need a bound of their own, so that what is reserved holds."""
        return self.budget.max_tokens is not None or self.budget.max_cost is not None

    def seconds_left(self) -> float | None:
        """Seconds until the time is spent, or None where there is no bound."""
        return (
            None
            if self.budget.max_seconds is None
            else self.budget.max_seconds - (time.monotonic() - self._begun)
        )

    def keep_back(self, tokens: int) -> None:
        """Keep so many tokens for the closing request, though never more than a quarter of all."""
        self._tokens_kept_back = min(tokens, (self.budget.max_tokens or 0) // 4)

    async def reserve(
        self,
        given: int,
        model: str,
        depth: int,
        *,
        closing: bool = False,
        is_root: bool = False,
        own_bound: int | None = None,
    ) -> Reservation:
        """Set aside what a call may take.

        Args:
            given: How many tokens the model is going to read at most.
            model: Its name, for its price.
            depth: Where in the tree the call stands.
            closing: Whether this is the root's closing request, which may use what was kept back
                for it.
            is_root: Whether the root asks for its next turn.
            own_bound: How many tokens the model's replies have at most by its user's own setting.

        Raises:
            BudgetSpentError: It does not fit, and nothing in flight could make room.
        """
        while True:
            lacking: Exhausted | None = None
            for reply in self._replies(own_bound):
                longest = max(reply, self._longest.get(model, 0))  # some servers ignore every bound
                reservation = Reservation(
                    model, depth, given + longest, reply, self._cost_of(given, longest, model)
                )
                lacking = self._lacking(reservation, calls=1, closing=closing)
                if lacking is None:
                    self._calls += 1
                    self._reserved.append(reservation)
                    return reservation
                if self._reserved:
                    break
            if lacking is not None and (
                lacking in {"budget_calls", "budget_seconds"} or not self._reserved
            ):
                raise self._refusal(lacking, given, model, closing=closing, is_root=is_root)
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()
                raise

    def _replies(self, own_bound: int | None) -> list[int]:
        """The bounds of a reply that are tried, longest first."""
        bounds = [self._reply_tokens if own_bound is None else min(own_bound, self._reply_tokens)]
        while self.limits_replies and bounds[-1] >= 2 * _LEAST_REPLY:
            bounds.append(bounds[-1] // 2)
        return bounds

    def _refusal(
        self, lacking: Exhausted, given: int, model: str, *, closing: bool, is_root: bool
    ) -> BudgetSpentError:
        """Why a call is refused. Whether that spends the budget depends on what else would fit."""
        budget = self.budget
        if lacking == "budget_seconds":
            self.spent_out = self.spent_out or lacking
            return BudgetSpentError(lacking, "the run's time is over")
        if lacking == "budget_calls":
            # Else one is left, for the closing request
            if not is_root or self._calls >= (budget.max_calls or 0):
                self.spent_out = self.spent_out or lacking
            return BudgetSpentError(lacking)
        reply = max(_LEAST_REPLY, self._longest.get(model, 0))
        least = Reservation(
            model, 0, _LEAST_PROMPT + reply, reply, self._cost_of(_LEAST_PROMPT, reply, model)
        )
        if self._lacking(least, calls=0, closing=closing) is not None:
            self.spent_out = self.spent_out or lacking
        if lacking == "budget_tokens" and budget.max_tokens is not None:
            left = max(
                0, budget.max_tokens - self._tokens - (0 if closing else self._tokens_kept_back)
            )
            what = f"the prompt and its reply take up to {given + reply:,} tokens, and {left:,} of the run's {budget.max_tokens:,} are left"
        else:
            left_cost = max(0.0, (budget.max_cost or 0.0) - self._cost)
            what = (
                f"the prompt and its reply take up to {given + reply:,} tokens, "
                f"which may cost more than the ${left_cost:.4g} that are left"
            )
        return BudgetSpentError(lacking, what if self.spent_out else f"{what}: ask with less text")

    def remaining(self) -> dict[str, tuple[float, float]]:
        """What is left of each bound, and how much it was: calls, tokens, dollars and seconds."""
        budget, seconds = self.budget, self.seconds_left()
        spent = {
            "calls": (budget.max_calls, self._calls),
            "tokens": (budget.max_tokens, self._tokens),
            "dollars": (budget.max_cost, self._cost),
            "seconds": (
                budget.max_seconds,
                0.0 if seconds is None else (budget.max_seconds or 0.0) - seconds,
            ),
        }
        return {
            kind: (max(0.0, whole - used), whole)
            for kind, (whole, used) in spent.items()
            if whole is not None
        }

    def allows_another_try(self, reservation: Reservation) -> bool:
        """Whether a call whose tries so far may have to be paid may be tried again."""
        reservation.uncounted += 1
        reservation.lacking = self._lacking(None, calls=0, closing=True)
        reservation.uncounted -= 1
        return reservation.lacking is None

    def settle(
        self, reservation: Reservation, record: CallRecord | None, *, is_several: bool = False
    ) -> Charge:
        """Replace a reservation with what the call took; what the provider did not count is assumed
        to be what was reserved.

        Args:
            reservation: What was reserved.
            record: The record of the call, or None if it was cancelled.
            is_several: Whether the model stands for several: the one that answered is charged.
        """
        self._reserved.remove(reservation)
        answered = record is not None and record.error is None
        usage = record.usage if record is not None and answered else Usage()
        answering = record.model if record is not None and answered else reservation.model
        tokens = reservation.uncounted * reservation.tokens
        cost = reservation.uncounted * reservation.cost
        if answered:
            self._answering[reservation.model] = answering
        if usage is not None:
            tokens += usage.input_tokens + usage.output_tokens
            if usage.output_tokens > reservation.reply_tokens:
                self._longest[reservation.model] = max(
                    usage.output_tokens, self._longest.get(reservation.model, 0)
                )
            if self.budget.max_cost is not None:
                cost += pricing.call_cost(usage, reservation.model, answering) or 0.0
        model = answering if is_several else reservation.model
        charge = Charge(model, reservation.depth, usage, answering, tokens, cost)
        self._take(charge)
        return charge

    def charge(self, charge: Charge) -> None:
        """Count a call that was paid before this process began."""
        self._calls += 1
        self._take(charge)

    def _take(self, charge: Charge) -> None:
        self._tokens += charge.tokens
        self._cost += charge.cost
        self._charges.append(charge)
        self._wake()

    def _cost_of(self, given: int, reply: int, model: str) -> float:
        """What a call may cost; a model that is answered for by a dearer one is as dear as that."""
        if self.budget.max_cost is None:
            return 0.0
        usage = Usage(input_tokens=given, output_tokens=reply)
        return max(
            pricing.cost(usage, model) or 0.0,
            pricing.call_cost(usage, model, self._answering.get(model, model)) or 0.0,
        )

    def exhausted(self) -> Exhausted | None:
        """What there is too little of for any further call, whatever calls in flight give back;
        None if there is enough.
        """
        lacking = self._lacking(None, calls=1, closing=False)
        return self.spent_out or (
            lacking if lacking in {"budget_calls", "budget_seconds"} or not self._reserved else None
        )

    def _lacking(
        self, wanted: Reservation | None, *, calls: int, closing: bool
    ) -> Exhausted | None:
        """What there is too little of for what is reserved and this."""
        budget = self.budget
        if budget.max_calls is not None and self._calls + calls > budget.max_calls - (
            0 if closing else self._calls_kept_back
        ):
            return "budget_calls"
        held = self._reserved if wanted is None else [*self._reserved, wanted]
        if budget.max_tokens is not None:
            tokens = self._tokens + sum(each.tokens * each.tries for each in held)
            if tokens > budget.max_tokens - (0 if closing else self._tokens_kept_back):
                return "budget_tokens"
        if (
            budget.max_cost is not None
            and self._cost + sum(each.cost * each.tries for each in held) > budget.max_cost
        ):
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

    def tally(self) -> Spending:
        """What was spent so far."""
        return Spending(
            tuple((each.model, each.depth, each.usage, each.answering) for each in self._charges),
            pricing.call_cost,
        )
