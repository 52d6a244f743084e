"""Checks the arguments that model code passes to host functions: every argument is hostile."""

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
        """A registered model, never an address, which could be any server."""
        subs = self._settings.subs
        if name is None:
            return self._settings.sub
        if isinstance(name, str) and name in subs:
            return subs[name]
        shown = repr(name[:60]) if isinstance(name, str) else kind(name)
        raise HostCallError(
            f"model={shown} is not registered; registered are: {', '.join(map(repr, subs))}",
            type="ValueError",
        )

    def items(self, function: str, items: Any, wanted: str) -> list[Any]:
        """The items of a batch; `wanted` describes them in the error message."""
        if not isinstance(items, list):
            raise HostCallError(
                f"{function}: {wanted}, not {kind(items)}",
                type="TypeError",
            )
        most = self._settings.limits.batch_items
        if len(items) > most:
            raise HostCallError(
                f"{function}: a batch has at most {most:,} items, not {len(items):,}: split it",
                type="ValueError",
            )
        return items

    def width(self, width: Any, name: str = "max_concurrent") -> int:
        """The maximum of concurrent calls of a batch."""
        if width is None:
            return self._settings.max_parallel_calls
        if type(width) is not int or width < 1:
            raise HostCallError(f"{name} must be an integer of at least 1", type="ValueError")
        return min(width, self._settings.max_parallel_calls)


def required_text(function: str, name: str, value: Any) -> str:
    """A non-empty string, checked."""
    if not isinstance(value, str) or not value.strip():
        raise HostCallError(
            f"{function}: the {name} must be a string that is not empty, not {kind(value)}",
            type="ValueError",
        )
    return value


def kind(value: Any) -> str:
    """The name of a value's type, for messages."""
    return getattr(value, "type", type(value).__name__) if not isinstance(value, str) else "str"


def is_text(value: Any) -> bool:
    """Whether a value is a string, and not a failed reply."""
    return isinstance(value, str) and not isinstance(value, LLMError)
