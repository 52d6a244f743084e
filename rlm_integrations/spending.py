"""The calls, tokens and US dollars that a run used, by model and by depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, TypeVar

from rlm_integrations._json import read_record, to_plain
from rlm_integrations.errors import InputError
from rlm_integrations.records import Usage


@dataclass(frozen=True, slots=True)
class Spent:
    """The use of some calls.

    Attributes:
        calls: The number of calls that were made.
        usage: Their tokens, as far as providers reported them.
        cost: Their cost in US dollars, or None ("unknown") if any call has no known price.
        uncounted: How many calls were answered without token counts, or with impossible ones.
        cached: How many further calls were answered from the cache, without tokens and cost.
    """

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0
    uncounted: int = 0
    cached: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        """The sum of both."""
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Spent(
            self.calls + other.calls,
            self.usage + other.usage,
            cost,
            self.uncounted + other.uncounted,
            self.cached + other.cached,
        )


K = TypeVar("K")
Price = Callable[[Usage, str, str], float | None]


class Spending:
    """The use of a run, including its children. The sums are computed at the first access, because
    loading the price list is slow.

    Args:
        calls: For each call: the requested model, the depth, the tokens (None if the provider did
            not report them), and the model that answered.
        price: Returns the cost of tokens, given both models.
        cached: For each call that was answered from the cache: the requested model and the depth.
    """

    def __init__(
        self,
        calls: Sequence[tuple[str, int, Usage | None, str]] = (),
        price: Price = lambda _usage, _asked, _answering: None,
        cached: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._calls = calls
        self._price = price
        self._cached = cached

    @cached_property
    def _added_up(self) -> tuple[dict[str, Spent], dict[int, Spent]]:
        by_model: dict[str, Spent] = {}
        by_depth: dict[int, Spent] = {}
        for (model, depth), spent in self._by_model_and_depth().items():
            by_model[model] = by_model.get(model, Spent()) + spent
            by_depth[depth] = by_depth.get(depth, Spent()) + spent
        for model, depth in self._cached:
            by_model[model] = by_model.get(model, Spent()) + Spent(cached=1)
            by_depth[depth] = by_depth.get(depth, Spent()) + Spent(cached=1)
        return by_model, by_depth

    def _by_model_and_depth(self) -> dict[tuple[str, int], Spent]:
        found: dict[tuple[str, int], Spent] = {}
        prices: dict[tuple[Usage, str, str], float | None] = {}  # many calls are alike
        for model, depth, usage, answering in self._calls:
            if usage is None:
                spent = Spent(1, Usage(), None, 1)
            else:
                call = usage, model, answering
                if call not in prices:
                    prices[call] = self._price(*call)
                spent = Spent(1, usage, prices[call])
            before = found.get((model, depth))
            found[model, depth] = spent if before is None else before + spent
        return found

    def calls_at(self, depth: int) -> int:
        """The number of calls at this depth."""
        if "_added_up" in self.__dict__:
            return self.by_depth[depth].calls if depth in self.by_depth else 0
        return sum(each == depth for _, each, _, _ in self._calls)

    @cached_property
    def usage(self) -> Mapping[str, Usage]:
        """Tokens by model, as far as providers reported them. Unlike the cost, it needs no price
        list.
        """
        if "_added_up" in self.__dict__:
            return {model: spent.usage for model, spent in self.by_model.items()}
        found: dict[str, Usage] = {}
        for model, _, usage, _ in self._calls:
            found[model] = found.get(model, Usage()) + (usage or Usage())
        return {**{model: Usage() for model, _ in self._cached}, **found}

    @property
    def cached(self) -> int:
        """How many calls the cache answered. Unlike the cost, it needs no price list."""
        if "_added_up" in self.__dict__:
            return sum(spent.cached for spent in self.by_model.values())
        return len(self._cached)

    @property
    def uncounted(self) -> frozenset[str]:
        """The models that answered at least one call without token counts."""
        if "_added_up" in self.__dict__:
            return frozenset(model for model, spent in self.by_model.items() if spent.uncounted)
        return frozenset(model for model, _, usage, _ in self._calls if usage is None)

    @property
    def by_model(self) -> Mapping[str, Spent]:
        """The use by model name."""
        return self._added_up[0]

    @property
    def by_depth(self) -> Mapping[int, Spent]:
        """The use by depth: 0 for the root's own calls, 1 for those of its code, and so on."""
        return self._added_up[1]

    @property
    def total(self) -> Spent:
        """The use of all calls."""
        return sum(self.by_model.values(), Spent())

    def to_dict(self) -> dict[str, Any]:
        """The spending as plain JSON."""
        return {
            "by_model": to_plain(self.by_model),
            "by_depth": to_plain(self.by_depth),
            "total": to_plain(self.total),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The spending from the output of `to_dict`.

        Raises:
            InputError: The data is not a saved spending.
        """
        if not isinstance(data, Mapping) or not {"by_model", "by_depth"} <= data.keys():
            raise InputError("spent must be an object with by_model and by_depth")
        by_model = read_record(Mapping[str, Spent], data["by_model"], "spent.by_model")
        by_depth = read_record(Mapping[str, Spent], data["by_depth"], "spent.by_depth")
        if wrong := [
            depth
            for depth in by_depth
            if not (depth.isascii() and depth.isdigit() and len(depth) < 10)
        ]:
            raise InputError(f"spent.by_depth: key {wrong[0][:40]!r} must be a depth, such as '0'")
        return cls._of(by_model, {int(depth): spent for depth, spent in by_depth.items()})

    @classmethod
    def _of(cls, by_model: Mapping[str, Spent], by_depth: Mapping[int, Spent]) -> Self:
        tally = cls()
        tally.__dict__["_added_up"] = by_model, by_depth
        return tally

    def __add__(self, other: "Spending") -> "Spending":
        """The use of both."""
        return Spending._of(
            _added(self.by_model, other.by_model), _added(self.by_depth, other.by_depth)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the sums, without the price list."""
        return Spending._of, self._added_up

    def __eq__(self, other: object) -> bool:
        return self._added_up == other._added_up if isinstance(other, Spending) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # it contains dicts

    def __repr__(self) -> str:
        calls = (
            sum(spent.calls for spent in self.by_depth.values())
            if "_added_up" in self.__dict__
            else len(self._calls)
        )
        # Without the cost, which would need the price list
        return f"<Spending of {calls} calls>"


def _added(one: Mapping[K, Spent], other: Mapping[K, Spent]) -> dict[K, Spent]:
    return {**one, **{key: one.get(key, Spent()) + spent for key, spent in other.items()}}
