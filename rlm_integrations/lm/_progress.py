"""Progress on stderr, by tqdm."""

from typing import Any

from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Event


def bar_class() -> Any:
    """Tqdm's bar without its monitor, which would leave a thread behind."""
    from tqdm import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})


class Bar:
    """A hook that shows a batch's progress."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._failed = 0

    def __call__(self, event: Event) -> None:
        """Follow a batch's events."""
        if isinstance(event, BatchStarted):
            self._bar = bar_class()(total=event.total, desc=self._title, unit="prompt")
        elif isinstance(event, BatchProgress):
            if event.failed > self._failed:
                self._failed = event.failed
                self._bar.set_postfix(failed=event.failed, refresh=False)
            self._bar.update()
        elif isinstance(event, BatchFinished):
            self._bar.close()
