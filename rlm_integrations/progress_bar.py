"""Progress on stderr, with tqdm."""

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
    """Tqdm's bar class without its monitor thread."""
    from tqdm import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})


def retried_state(reasons: Iterable[str]) -> str:
    """How many calls are being retried, and the most frequent reason."""
    counts = Counter(reasons)
    return f"{counts.total()} retried ({counts.most_common(1)[0][0]})"


class Bar:
    """A hook that shows a batch's progress."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._failed = 0
        self._retried: dict[str, str] = {}  # reasons, of calls that wait for a retry

    def __call__(self, event: Event) -> None:
        """Update the bar from an event."""
        if isinstance(event, BatchStarted):
            self._bar = bar_class()(total=event.total, desc=self._title, unit="prompt")
        elif isinstance(event, BatchProgress):
            self._failed = event.failed
            self._refresh(refresh=False)
            self._bar.update()
        elif isinstance(event, CallRetried):
            self._retried[event.id] = event.error.type
            self._refresh(refresh=len(self._retried) == 1)
        elif isinstance(event, CallFinished | CallFailed):
            self._retried.pop(event.id, None)
        elif isinstance(event, BatchFinished):
            self._retried.clear()
            self._refresh(refresh=False)
            self._bar.close()

    def _refresh(self, *, refresh: bool) -> None:
        notes = [retried_state(self._retried.values())] if self._retried else []
        notes += [f"failed={self._failed}"] if self._failed else []
        self._bar.set_postfix_str(", ".join(notes), refresh=refresh)
