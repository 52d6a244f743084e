"""Checks of what model code passes to host functions: every argument is hostile."""

from typing import Any

from rlm_integrations.engine.settings import Settings
from rlm_integrations.lm.base import LM
from rlm_integrations.records import LLMError
from rlm_integrations.sandbox.base import HostCallError


class Arguments:
    """Checks arguments against the options of the run; each check raises `HostCallError`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def model(self, name: Any) -> LM:
        """A registered model: never an address, which could be anybody's."""
        subs = self._settings.subs
        if name is None:
            return self._settings.sub
        if isinstance(name, str) and name in subs:
            return subs[name]
        shown = repr(name[:60]) if isinstance(name, str) else kind(name)
        raise HostCallError(
            f"model={shown} is not registered; there are: {', '.join(map(repr, subs))}",
            type="ValueError",
        )

    def items(self, function: str, items: Any, wanted: str) -> list[Any]:
        """The items of a batch; `wanted` is how the message describes them."""
        if not isinstance(items, list):
            raise HostCallError(
                f"{function}: {wanted}, not {kind(items)}",
                type="TypeError",
            )
        most = self._settings.limits.batch_items
        if len(items) > most:
            raise HostCallError(
                f"{function}: a batch has at most {most:,} items, not {len(items):,}: make several",
                type="ValueError",
            )
        return items

    def width(self, width: Any, name: str = "max_concurrent") -> int:
        """How many calls of a batch are made at once."""
        if width is None:
            return self._settings.max_parallel_calls
        if type(width) is not int or width < 1:
            raise HostCallError(f"{name} must be an integer of at least 1", type="ValueError")
        return min(width, self._settings.max_parallel_calls)


def required_text(function: str, name: str, value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise HostCallError(
            f"{function}: the {name} must be a string that is not empty, not {kind(value)}",
            type="ValueError",
        )
    return value


def kind(value: Any) -> str:
    """The type of a value, as messages name it."""
    return getattr(value, "type", type(value).__name__) if not isinstance(value, str) else "str"


def is_text(value: Any) -> bool:
    """Whether a value is a string and no failed reply."""
    return isinstance(value, str) and not isinstance(value, LLMError)
