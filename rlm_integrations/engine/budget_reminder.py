"""Reminds a root model of its budget."""

from collections.abc import Mapping
from typing import Final

from rlm_integrations.engine import prompts

_SHARES: Final = (0.5, 0.25, 0.1)  # of a budget: the model is notified when less is left


class BudgetReminder:
    """Notifies one root model each time that its budget falls below another share."""

    def __init__(self) -> None:
        self._share = 1.0  # in the last notification

    def notes(self, remaining: Mapping[str, tuple[float, float]]) -> list[str]:
        """The notification, if there is one.

        Args:
            remaining: What is left of each limit, and its whole.
        """
        least = min((left / whole for left, whole in remaining.values()), default=1.0)
        if not any(least <= share < self._share for share in _SHARES):
            return []
        self._share = least
        return [prompts.budget_left({kind: left for kind, (left, _) in remaining.items()})]
