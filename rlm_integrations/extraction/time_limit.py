"""How long the reader of a document may work: the kernel ends its process after that."""

import signal
import time

_deadline = 0.0


def allow_document(seconds: float) -> None:
    """Allow this much processor time for a document, from now on."""
    global _deadline  # noqa: PLW0603 - the process has one document at a time
    _deadline = time.process_time() + seconds
    signal.setitimer(signal.ITIMER_PROF, seconds)


def allow_seconds(seconds: float) -> None:
    """Allow this much processor time for the next part of the document, within the document's."""
    signal.setitimer(signal.ITIMER_PROF, max(0.001, min(seconds, _deadline - time.process_time())))


def end_limit() -> None:
    """The document is read."""
    signal.setitimer(signal.ITIMER_PROF, 0)
