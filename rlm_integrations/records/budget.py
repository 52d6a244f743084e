"""The budget of a run."""

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a run may spend, including its children. None means no limit.

    Attributes:
        max_calls: Calls to models, including the root's own; a call and its retries count once.
        max_tokens: Input and output tokens together.
        max_cost: US dollars. Refused before the first call if the price of a model is unknown.
        max_seconds: Wall time.
        on_exceeded: "partial" returns the best answer so far, with its `stop_reason`; "raise"
            raises `BudgetExceededError`, which contains it. `RLM(on_incomplete="raise")` raises for
            every other end without a final answer too.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    on_exceeded: Literal["partial", "raise"] = "partial"

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_tokens", "max_cost", "max_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InputError(
                    f"Budget({name}={value!r}): a number greater than 0 is needed, or None for no"
                    " limit"
                )
            if name in {"max_calls", "max_tokens"} and not isinstance(value, int):
                raise InputError(f"Budget({name}={value!r}): it must be an integer")
        if self.on_exceeded not in {"partial", "raise"}:
            raise InputError(
                f"Budget(on_exceeded={self.on_exceeded!r}): choose 'partial' or 'raise'"
            )
