"""The budget of a run and its child runs. Each call reserves its share before it is made, and is
settled afterwards.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, Self

from rlm_integrations.lm import pricing
from rlm_integrations.records import Budget, CallRecord, Usage
from rlm_integrations.spending import Spending

Exhausted = Literal["budget_calls", "budget_tokens", "budget_cost", "budget_seconds"]

_MIN_REPLY_TOKENS = 256  # a call that leaves fewer for its reply is not made
_MIN_PROMPT_TOKENS = 512  # a run that has fewer left for a prompt is over


@dataclass(slots=True, eq=False)
class Reservation:
    """The part of the budget that is reserved for one call.

    Attributes:
        model: The name of the model.
        depth: The depth of the call in the tree.
        tokens: Tokens of the request and the reply, for one attempt.
        reply_tokens: The limit of the reply, in tokens.
        cost: US dollars, for one attempt.
        uncounted: Attempts so far that the provider may charge for, and whose tokens it did not
            report.
        lacking: The limit that forbids a retry; None if there is none.
    """

    model: str
    depth: int
    tokens: int
    reply_tokens: int
    cost: float
    uncounted: int = 0
    lacking: Exhausted | None = None

    @property
    def attempts(self) -> int:
        """The number of attempts to reserve for."""
        return max(1, self.uncounted)


@dataclass(frozen=True, slots=True)
class Charge:
    """The amount that one call took from the budget.

    Attributes:
        model: The model that was asked, or the one that answered for it.
        depth: The depth of the call.
        usage: Its tokens, or None if the provider did not count them.
        answering: The model name in the provider's answer.
        tokens: Tokens that count against the budget, including uncounted attempts.
        cost: US dollars that count against the budget; 0 without a cost limit.
        cached: Whether the cache answered, so that nothing was taken.
    """

    model: str
    depth: int
    usage: Usage | None
    answering: str
    tokens: int
    cost: float
    cached: bool = False

    @classmethod
    def of_cached(cls, model: str, depth: int) -> Self:
        """The charge of a call that the cache answered: nothing."""
        return cls(model, depth, Usage(), model, 0, 0.0, cached=True)


class BudgetSpentError(Exception):
    """The remaining budget does not cover a call.

    Args:
        reason: The limit that is reached.
        message: What the call needs, and what is left.
        was_asked: Whether the model was called, but did not answer.
        charge: The amount that the call took nevertheless.
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
    """Keeps the sum of spent and reserved amounts within the budget.

    A call that does not fit waits while calls in flight may still return unused budget; otherwise
    it gets a smaller reply limit, or is refused. A refused call fails alone. The budget is spent
    when no useful call fits.

    Args:
        budget: The limits.
        reply_tokens: The default limit of a reply, in tokens.
        begun: When the run began, in seconds of `time.monotonic()`.

    Attributes:
        spent_out: The limit that allows no further call; None if there is none.
    """

    def __init__(self, budget: Budget, reply_tokens: int, begun: float) -> None:
        self.budget = budget
        self.spent_out: Exhausted | None = None
        self._reply_tokens = reply_tokens
        self._closing_calls = 1 if (budget.max_calls or 0) > 1 else 0
        self._closing_tokens = 0
        self._begun = begun
        self._calls = 0
        self._tokens = 0
        self._cost = 0.0
        # By model name, the tokens of the longest reply that exceeded its limit
        self._longest: dict[str, int] = {}
        self._answering: dict[str, str] = {}  # by model name, the model that answered last
        self._reserved: set[Reservation] = set()
        self._reserved_tokens = 0  # of all their attempts
        self._reserved_cost = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._charges: list[Charge] = []

    @property
    def limits_replies(self) -> bool:
        """Whether calls need a reply limit, so that they stay within their reservations."""
        return self.budget.max_tokens is not None or self.budget.max_cost is not None

    def seconds_left(self) -> float | None:
        """Seconds until the time limit, or None without one."""
        return (
            None
            if self.budget.max_seconds is None
            else self.budget.max_seconds - (time.monotonic() - self._begun)
        )

    def reserve_closing(self, tokens: int, *, calls: int = 1) -> None:
        """Reserve tokens for the closing request, at most a quarter of the limit; 0 calls: none."""
        self._closing_calls = min(self._closing_calls, calls)
        self._closing_tokens = min(tokens, (self.budget.max_tokens or 0) // 4)

    async def reserve(
        self,
        prompt_tokens: int,
        model: str,
        depth: int,
        *,
        closing: bool = False,
        is_root: bool = False,
        own_limit: int | None = None,
    ) -> Reservation:
        """Reserve the maximum that a call can take.

        Args:
            prompt_tokens: The maximum of tokens in the request.
            model: The model's name, for its price.
            depth: The depth of the call in the tree.
            closing: Whether this is the root's closing request, which may use the budget that is
                reserved for it.
            is_root: Whether this is a turn of the root.
            own_limit: The reply limit that the user has set on the model, in tokens.

        Raises:
            BudgetSpentError: The call does not fit, and calls in flight cannot make room.
        """
        while True:
            lacking: Exhausted | None = None
            for reply in self._reply_limits(own_limit):
                longest = max(reply, self._longest.get(model, 0))  # some servers ignore every limit
                reservation = Reservation(
                    model,
                    depth,
                    prompt_tokens + longest,
                    reply,
                    self._cost_of(prompt_tokens, longest, model),
                )
                lacking = self._lacking(reservation, calls=1, closing=closing)
                if lacking is None:
                    self._calls += 1
                    self._reserved.add(reservation)
                    self._hold(reservation, 1)
                    return reservation
                if self._reserved:
                    break
            if lacking is not None and (
                lacking in {"budget_calls", "budget_seconds"} or not self._reserved
            ):
                raise self._refusal(lacking, prompt_tokens, model, closing=closing, is_root=is_root)
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()
                raise

    def _reply_limits(self, own_limit: int | None) -> list[int]:
        """The reply limits to try, longest first."""
        limits = [self._reply_tokens if own_limit is None else min(own_limit, self._reply_tokens)]
        while self.limits_replies and limits[-1] >= 2 * _MIN_REPLY_TOKENS:
            limits.append(limits[-1] // 2)
        return limits

    def _refusal(
        self, lacking: Exhausted, prompt_tokens: int, model: str, *, closing: bool, is_root: bool
    ) -> BudgetSpentError:
        """The error of a refused call. The budget counts as spent if a minimal call does not fit
        either.
        """
        budget = self.budget
        if lacking == "budget_seconds":
            self.spent_out = self.spent_out or lacking
            return BudgetSpentError(lacking, "the run's time is over")
        if lacking == "budget_calls":
            # Otherwise one call is left: the root's closing request
            if not is_root or self._calls >= (budget.max_calls or 0):
                self.spent_out = self.spent_out or lacking
            return BudgetSpentError(lacking)
        reply = max(_MIN_REPLY_TOKENS, self._longest.get(model, 0))
        least = Reservation(
            model,
            0,
            _MIN_PROMPT_TOKENS + reply,
            reply,
            self._cost_of(_MIN_PROMPT_TOKENS, reply, model),
        )
        if self._lacking(least, calls=0, closing=closing) is not None:
            self.spent_out = self.spent_out or lacking
        if lacking == "budget_tokens" and budget.max_tokens is not None:
            left = max(
                0, budget.max_tokens - self._tokens - (0 if closing else self._closing_tokens)
            )
            what = (
                f"the prompt and its reply take up to {prompt_tokens + reply:,} tokens, "
                f"and {left:,} of the run's {budget.max_tokens:,} are left"
            )
        else:
            left_cost = max(0.0, (budget.max_cost or 0.0) - self._cost)
            what = (
                f"the prompt and its reply take up to {prompt_tokens + reply:,} tokens, "
                f"which may cost more than the ${left_cost:.4g} that are left"
            )
        return BudgetSpentError(lacking, what if self.spent_out else f"{what}: ask with less text")

    def remaining(self) -> dict[str, tuple[float, float]]:
        """The remaining amount and the limit, for each of calls, tokens, dollars and seconds."""
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

    def allows_retry(self, reservation: Reservation) -> bool:
        """Whether the budget covers a retry, in addition to the uncounted attempts so far."""
        self.count_attempt(reservation, 1)
        reservation.lacking = self._lacking(None, calls=0, closing=True)
        self.count_attempt(reservation, -1)
        return reservation.lacking is None

    def count_attempt(self, reservation: Reservation, change: int) -> None:
        """Count one more attempt that the provider may charge for, or one less."""
        before = reservation.attempts
        reservation.uncounted += change
        self._hold(reservation, reservation.attempts - before)

    def _hold(self, reservation: Reservation, attempts: int) -> None:
        self._reserved_tokens += attempts * reservation.tokens
        self._reserved_cost += attempts * reservation.cost

    def settle(
        self, reservation: Reservation, record: CallRecord | None, *, is_several: bool = False
    ) -> Charge:
        """Replace a reservation with the actual use of the call. For an attempt whose tokens the
        provider did not report, the reserved amount is charged.

        Args:
            reservation: The reservation.
            record: The record of the call, or None if it was cancelled.
            is_several: Whether the model routes to several: the one that answered is charged.
        """
        self._reserved.remove(reservation)
        self._hold(reservation, -reservation.attempts)
        if not self._reserved:
            self._reserved_cost = 0.0  # without rounding errors
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
                cost += pricing.most_cost(usage, reservation.model, answering)
        model = answering if is_several else reservation.model
        charge = Charge(model, reservation.depth, usage, answering, tokens, cost)
        self._take(charge)
        return charge

    def charge(self, charge: Charge) -> None:
        """Count a call that an earlier process paid for, or that the cache answered."""
        self._calls += not charge.cached
        self._take(charge)

    def _take(self, charge: Charge) -> None:
        self._tokens += charge.tokens
        self._cost += charge.cost
        self._charges.append(charge)
        self._wake()

    def _cost_of(self, prompt: int, reply: int, model: str) -> float:
        """The maximum cost of a call; the higher price if another model answers for this one."""
        if self.budget.max_cost is None:
            return 0.0
        costs = []
        for each in {model, self._answering.get(model, model)}:
            written = prompt if pricing.has_write_price(each) else 0  # which costs more
            usage = Usage(prompt, reply, cache_write_tokens=written)
            costs.append(pricing.call_cost(usage, model, each) or 0.0)
        return max(costs)

    def exhausted(self) -> Exhausted | None:
        """The limit that allows no further call, even if calls in flight return unused budget; None
        if there is none.
        """
        lacking = self._lacking(None, calls=1, closing=False)
        return self.spent_out or (
            lacking if lacking in {"budget_calls", "budget_seconds"} or not self._reserved else None
        )

    def _lacking(
        self, wanted: Reservation | None, *, calls: int, closing: bool
    ) -> Exhausted | None:
        """The limit that the reservations exceed together with `wanted`; None if there is none."""
        budget = self.budget
        if budget.max_calls is not None and self._calls + calls > budget.max_calls - (
            0 if closing else self._closing_calls
        ):
            return "budget_calls"
        if budget.max_tokens is not None:
            tokens = self._tokens + self._reserved_tokens + (0 if wanted is None else wanted.tokens)
            if tokens > budget.max_tokens - (0 if closing else self._closing_tokens):
                return "budget_tokens"
        if budget.max_cost is not None:
            cost = self._cost + self._reserved_cost + (0.0 if wanted is None else wanted.cost)
            if cost > budget.max_cost:
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
        """The number of calls, including those in flight."""
        return self._calls

    def tally(self) -> Spending:
        """The spending so far."""
        return Spending(
            tuple(
                (each.model, each.depth, each.usage, each.answering)
                for each in self._charges
                if not each.cached
            ),
            pricing.call_cost,
            tuple((each.model, each.depth) for each in self._charges if each.cached),
        )
