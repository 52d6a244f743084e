"""The cost of calls while they are made."""

from concurrent.futures import Future

from rlm_integrations._concurrency import runtime
from rlm_integrations.lm import pricing
from rlm_integrations.records import CallRecord, Usage

# Input tokens of calls that are priced one by one: some prices rise with the length of the input.
_LONG = 30_000
_RATED = 10_000  # tokens whose price gives the price of one token

Models = tuple[str, str]  # the one that was asked, and the one that answered
# US dollars for a token of input, from the cache, of output, written to the cache; None: unknown
Rates = tuple[float | None, ...]


class RunningCost:
    """Sums up the cost of calls for display.

    To look up the price of every call would take longer than the rest of the work for it. So the
    prices of a model's tokens are looked up once, in a thread.
    """

    def __init__(self) -> None:
        self._tokens: dict[Models, list[int]] = {}  # as in `Rates`
        self._rates: dict[Models, Rates] = {}
        self._long: list[tuple[Models, Usage]] = []  # calls without a price yet
        self._cost_of_long = 0.0
        self._is_unknown = False
        self._lookup: Future[None] | None = None

    def add(self, record: CallRecord, asked: str) -> None:
        """Add a call that was answered now."""
        usage, models = record.usage, (asked, record.model)
        if usage is None:
            self._is_unknown = self._is_unknown or asked not in pricing.FREE
        elif usage.input_tokens >= _LONG:
            self._long.append((models, usage))
        else:
            tokens = self._tokens.get(models)
            if tokens is None:
                tokens = self._tokens[models] = [0, 0, 0, 0]
            cached = min(usage.cached_tokens, usage.input_tokens)
            written = min(usage.cache_write_tokens, usage.input_tokens - cached)
            tokens[0] += usage.input_tokens - cached - written
            tokens[1] += cached
            tokens[2] += usage.output_tokens
            tokens[3] += written

    def shown(self) -> str:
        """The cost in words; "" if it is zero, or not looked up yet."""
        if not self._is_looking_up:
            missing = self._tokens.keys() - self._rates.keys()
            calls, self._long = self._long, []
            if missing or calls:
                work = runtime.threads("work", 4)
                self._lookup = work.submit(self._look_up, missing, calls)
        cost = self._cost_of_long
        for models, tokens in self._tokens.items():
            rates = self._rates.get(models, (0.0,) * len(tokens))
            for rate, count in zip(rates, tokens, strict=True):
                self._is_unknown = self._is_unknown or (rate is None and count > 0)
                cost += (rate or 0.0) * count
        if self._is_unknown:
            return "cost unknown"
        return f"${cost:.4f}" if cost else ""

    @property
    def is_complete(self) -> bool:
        """Whether the price of every call is known or known to be unknown."""
        return not (self._is_looking_up or self._long or self._tokens.keys() - self._rates.keys())

    @property
    def _is_looking_up(self) -> bool:
        return self._lookup is not None and not self._lookup.done()

    def _look_up(self, missing: set[Models], calls: list[tuple[Models, Usage]]) -> None:
        for models in missing:
            self._rates[models] = _rates(*models)
        for (asked, answering), usage in calls:
            cost = pricing.call_cost(usage, asked, answering)
            self._is_unknown = self._is_unknown or cost is None
            self._cost_of_long += cost or 0.0


def _rates(asked: str, answering: str) -> Rates:
    costs = [
        pricing.call_cost(usage, asked, answering)
        for usage in (
            Usage(input_tokens=_RATED),
            Usage(input_tokens=_RATED, cached_tokens=_RATED),
            Usage(output_tokens=_RATED),
            Usage(input_tokens=_RATED, cache_write_tokens=_RATED),
        )
    ]
    return tuple(None if cost is None else cost / _RATED for cost in costs)
