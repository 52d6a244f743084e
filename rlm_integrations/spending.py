"""What a run used: calls, tokens and US dollars, by model and by depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from rlm_integrations._json import read_record, to_plain
from rlm_integrations.errors import InputError
from rlm_integrations.records import Usage


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls took.

    Attributes:
        calls: How many there were.
        usage: Their tokens, as far as providers counted them.
        cost: US dollars, or None ("unknown") where any of them has no price.
        uncounted: How many of the calls the provider answered without a count, or with one that
            cannot be true.
    """

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0
    uncounted: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        """Both in sum."""
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Spent(
            self.calls + other.calls,
            self.usage + other.usage,
            cost,
            self.uncounted + other.uncounted,
        )


Price = Callable[[Usage, str, str], float | None]


class Spending:
    """What a run took, its children included. It is added up when it is first asked: reading the
    price list takes a while.

    Args:
        calls: Of each call the model that was asked, the depth, the tokens (None where the provider
            did not say), and the model that answered.
        price: What tokens cost, given both models.
    """

    def __init__(
        self,
        calls: Sequence[tuple[str, int, Usage | None, str]] = (),
        price: Price = lambda _usage, _asked, _answering: None,
    ) -> None:
        self._calls = calls
        self._price = price

    @cached_property
    def _added_up(self) -> tuple[dict[str, Spent], dict[int, Spent]]:
        by_model: dict[str, Spent] = {}
        by_depth: dict[int, Spent] = {}
        for model, depth, usage, answering in self._calls:
            spent = Spent(
                1,
                usage or Usage(),
                None if usage is None else self._price(usage, model, answering),
                int(usage is None),
            )
            by_model[model] = by_model.get(model, Spent()) + spent
            by_depth[depth] = by_depth.get(depth, Spent()) + spent
        return by_model, by_depth

    def calls_at(self, depth: int) -> int:
        """How many calls there were at this depth."""
        if "_added_up" in self.__dict__:
            return self.by_depth[depth].calls if depth in self.by_depth else 0
        return sum(each == depth for _, each, _, _ in self._calls)

    @cached_property
    def usage(self) -> Mapping[str, Usage]:
        """Tokens by model, as far as providers counted them. Unlike cost it needs no price list."""
        if "_added_up" in self.__dict__:
            return {model: spent.usage for model, spent in self.by_model.items()}
        found: dict[str, Usage] = {}
        for model, _, usage, _ in self._calls:
            found[model] = found.get(model, Usage()) + (usage or Usage())
        return found

    @property
    def uncounted(self) -> frozenset[str]:
        """The models that answered at least once without a count."""
        if "_added_up" in self.__dict__:
            return frozenset(model for model, spent in self.by_model.items() if spent.uncounted)
        return frozenset(model for model, _, usage, _ in self._calls if usage is None)

    @property
    def by_model(self) -> Mapping[str, Spent]:
        """By the name of the model."""
        return self._added_up[0]

    @property
    def by_depth(self) -> Mapping[int, Spent]:
        """0 for the root's own calls, 1 for those of its code, and so on."""
        return self._added_up[1]

    @property
    def total(self) -> Spent:
        """All in all."""
        return sum(self.by_model.values(), Spent())

    def to_dict(self) -> dict[str, Any]:
        """The tally as plain JSON."""
        return {
            "by_model": to_plain(self.by_model),
            "by_depth": to_plain(self.by_depth),
            "total": to_plain(self.total),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The tally that `to_dict` wrote.

        Raises:
            InputError: It is not one.
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Its sums: the price list stays."""
        return Spending._of, self._added_up

    def __eq__(self, other: object) -> bool:
        return self._added_up == other._added_up if isinstance(other, Spending) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # it holds dicts

    def __repr__(self) -> str:
        calls = (
            sum(spent.calls for spent in self.by_depth.values())
            if "_added_up" in self.__dict__
            else len(self._calls)
        )
        # Not its cost, which would have to read the price list first
        return f"<Tally of {calls} calls>"
