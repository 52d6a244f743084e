"""Progress of a batch on stderr."""

from typing import Any

from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Event


class Bar:
    """A hook that shows a batch's progress by tqdm."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._failed = 0

    def __call__(self, event: Event) -> None:
        """Follow a batch's events."""
        if isinstance(event, BatchStarted):
            from tqdm import tqdm  # type: ignore[import-untyped] - it has no types of its own

            # Without the monitor, which would leave a thread behind.
            self._bar = type("Bar", (tqdm,), {"monitor_interval": 0})(total=event.total, desc=self._title, unit="prompt")
        elif isinstance(event, BatchProgress):
            if event.failed > self._failed:
                self._failed = event.failed
                self._bar.set_postfix(failed=event.failed, refresh=False)
            self._bar.update()
        elif isinstance(event, BatchFinished):
            self._bar.close()
