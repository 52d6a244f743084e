"""A document that several runs share."""

import asyncio
import threading
from concurrent.futures import Future

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.records import Limits


class SharedDocument:
    """A context that is read at its first use and kept, for whatever loop or thread asks next.

    Its text is let go of with the object, and whoever still holds the `Corpus`, such as the store
    of a run. To show it, or to hand it to a tracer, tells nothing of the text.

    Args:
        context: What `RLM` takes as a context; not kept once it is read.
    """

    def __init__(self, context: object) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._reading: Future[Corpus] | None = None

    async def corpus(self, limits: Limits) -> Corpus:
        """The document.

        Raises:
            ContextError: It cannot be read as text; the next call tries again.
        """
        if isinstance(self._context, Corpus):
            return self._context
        with self._lock:
            if self._reading is None or (
                self._reading.done() and self._reading.exception() is not None
            ):
                self._reading = runtime.threads("work", 4).submit(self._read, limits)
            reading = self._reading
        # Shared: one caller's cancellation is not another's
        return await asyncio.shield(asyncio.wrap_future(reading))

    def _read(self, limits: Limits) -> Corpus:
        self._context = corpus = Corpus.build(
            self._context, encoding=limits.encoding, errors=limits.decode_errors
        )
        return corpus

    def __repr__(self) -> str:
        return f"<{type(self).__name__} context>"
