"""Progress on stderr, by tqdm."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rlm_integrations.events import (
    BatchFinished,
    BatchProgress,
    BatchStarted,
    CallFailed,
    CallFinished,
    CallRetried,
    Event,
)


def bar_class() -> Any:
    """Tqdm's bar without its monitor, which would leave a thread behind."""
    from tqdm import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})


def retried_state(reasons: Iterable[str]) -> str:
    """How many calls are tried again, and why most of them."""
    counts = Counter(reasons)
    return f"{counts.total()} retried ({counts.most_common(1)[0][0]})"


class Bar:
    """A hook that shows a batch's progress."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._failed = 0
        self._retried: dict[str, str] = {}  # of calls that failed and wait for another try, why

    def __call__(self, event: Event) -> None:
        """Follow a batch's events."""
        if isinstance(event, BatchStarted):
            self._bar = bar_class()(total=event.total, desc=self._title, unit="prompt")
        elif isinstance(event, BatchProgress):
            self._failed = event.failed
            self._tell(refresh=False)
            self._bar.update()
        elif isinstance(event, CallRetried):
            self._retried[event.id] = event.error.type
            self._tell(refresh=len(self._retried) == 1)
        elif isinstance(event, CallFinished | CallFailed):
            self._retried.pop(event.id, None)
        elif isinstance(event, BatchFinished):
            self._retried.clear()
            self._tell(refresh=False)
            self._bar.close()

    def _tell(self, *, refresh: bool) -> None:
        told = [retried_state(self._retried.values())] if self._retried else []
        told += [f"failed={self._failed}"] if self._failed else []
        self._bar.set_postfix_str(", ".join(told), refresh=refresh)
