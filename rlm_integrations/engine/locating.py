"""Converts prompts for the record: text of the document becomes spans."""

import asyncio
from collections.abc import Sequence

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.engine.threads import TreeThreads
from rlm_integrations.errors import ContextError
from rlm_integrations.prompt_pieces import PromptPieces, literal


class PromptLocator:
    """Finds the parts of prompts that are text of the document, off the event loop. Its index of
    the document is built at the first use.
    """

    def __init__(self, corpus: Corpus, threads: TreeThreads) -> None:
        self._corpus = corpus
        self._threads = threads
        self._locator: Locator | None = None
        self._building = asyncio.Lock()

    async def pieces(self, prompts: Sequence[str]) -> list[PromptPieces]:
        """The prompts as pieces. If the document's file has changed, each is recorded as one string
        without spans.
        """
        try:
            async with self._building:
                if self._locator is None:
                    self._locator = await self._threads.free(Locator, self._corpus)
            return await self._threads.free(_locate, self._locator, prompts)
        except ContextError:
            return await self._threads.free(list, map(literal, prompts))

    async def close(self) -> None:
        """Release the index now: it may be large, and garbage collection may run late."""
        if self._locator is not None:
            await finish_despite_cancel(runtime.close_apart(setattr, self, "_locator", None))


def _locate(locator: Locator, prompts: Sequence[str]) -> list[PromptPieces]:
    located: list[PromptPieces] = []
    last = None
    for prompt in prompts:
        spend(len(prompt))
        located.append(locator.locate(prompt, after=last))
        spans = located[-1].spans
        last = spans[-1] if spans else last
    return located
