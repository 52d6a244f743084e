"""A document that several runs share."""

import asyncio
import threading
from concurrent.futures import Future

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.records import Limits


class SharedDocument:
    """A context that is read once, at its first use, and shared by all event loops and threads.

    The text is freed with this object and with every other holder of the `Corpus`, such as a run's
    store. Its `repr`, which tracers record, shows no document text.

    Args:
        context: Any context that `RLM` accepts; released once it is read.
    """

    def __init__(self, context: object) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._reading: Future[Corpus] | None = None

    async def corpus(self, limits: Limits) -> Corpus:
        """The document.

        Raises:
            ContextError: It cannot be read as text; the next call reads it again.
        """
        if isinstance(self._context, Corpus):
            return self._context
        with self._lock:
            if self._reading is None or (
                self._reading.done() and self._reading.exception() is not None
            ):
                self._reading = runtime.threads("work", 4).submit(self._read, limits)
            reading = self._reading
        # Several callers share this read: cancelling one of them must not cancel it
        return await asyncio.shield(asyncio.wrap_future(reading))

    def _read(self, limits: Limits) -> Corpus:
        self._context = corpus = Corpus.build(
            self._context, encoding=limits.encoding, errors=limits.decode_errors
        )
        return corpus

    def __repr__(self) -> str:
        return f"<{type(self).__name__} context>"
