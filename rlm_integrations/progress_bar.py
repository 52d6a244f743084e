"""Progress on stderr, with tqdm."""

import warnings
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
from rlm_integrations.terminal import has_terminal, printable, progress_screen


def bar_class() -> Any:
    """Tqdm's bar class without its monitor thread; in a notebook, that of its widget."""
    with warnings.catch_warnings():  # a notebook without ipywidgets has text
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})


def is_shown(bars: Any) -> bool:
    """Whether bars of this class are shown: stderr is a terminal, or they are widgets."""
    return has_terminal() or any(each.__module__ == "tqdm.notebook" for each in bars.__mro__)


def retried_state(reasons: Iterable[str]) -> str:
    """How many calls are being retried, and the most frequent reason."""
    counts = Counter(reasons)
    return f"{counts.total()} retried ({printable(counts.most_common(1)[0][0])})"


class Bar:
    """A hook that shows a batch's progress, if stderr is a terminal or in a notebook."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._failed = 0
        self._retried: dict[str, str] = {}  # reasons, of calls that wait for a retry

    def __call__(self, event: Event) -> None:
        """Update the bar from an event."""
        if isinstance(event, BatchStarted):
            bar = bar_class()
            if is_shown(bar):
                progress_screen().enter()
                self._bar = bar(
                    total=event.total,
                    desc=self._title,
                    unit="prompt",
                    file=progress_screen().stderr,
                )
        elif self._bar is None:
            return
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
            progress_screen().leave()

    def _refresh(self, *, refresh: bool) -> None:
        notes = [retried_state(self._retried.values())] if self._retried else []
        notes += [f"failed={self._failed}"] if self._failed else []
        self._bar.set_postfix_str(", ".join(notes), refresh=refresh)
