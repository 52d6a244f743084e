"""Converts prompts for the record: text of the document becomes spans."""

import asyncio
from collections.abc import Sequence

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.likely_parts import LikelyParts
from rlm_integrations.corpus.short_parts import ShortParts
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.engine.threads import TreeThreads
from rlm_integrations.errors import ContextError
from rlm_integrations.prompt_pieces import PromptPieces, literal
from rlm_integrations.records import SpanRef


class PromptLocator:
    """Finds the parts of prompts that are text of the document, off the event loop. Its index of
    the document is built at the first use.

    Args:
        corpus: The document.
        threads: Do the work.
        is_fine: Whether short parts are searched for too; see `Locator`.
    """

    def __init__(self, corpus: Corpus, threads: TreeThreads, *, is_fine: bool = False) -> None:
        self._corpus = corpus
        self._threads = threads
        self._is_fine = is_fine
        self._locator: Locator | None = None
        self._short: ShortParts | None = None
        self._building = asyncio.Lock()

    async def pieces(self, prompts: Sequence[str], run: "RunLocator") -> list[PromptPieces]:
        """The prompts of a run as pieces; see `RunLocator.pieces`."""
        try:
            async with self._building:
                if self._locator is None or self._locator.is_outgrown:
                    self._locator = await self._threads.free(self._build)
                elif self._locator.is_behind:
                    await self._threads.free(self._locator.extend)
            return await self._threads.free(_locate, self._locator, self._short, prompts, run)
        except ContextError:
            return await self._threads.free(list, map(literal, prompts))

    async def look_for(self, unread: Sequence[SpanRef]) -> None:
        """Find these parts in later prompts as a whole, even if they are short.

        Raises:
            ContextError: The document's file has changed.
        """
        self._short = await self._threads.free(self._short_parts, unread)

    def _build(self) -> Locator:
        return Locator(self._corpus, is_fine=self._is_fine)

    def _short_parts(self, unread: Sequence[SpanRef]) -> ShortParts:
        for first in unread[:1]:  # so that a changed file is noticed if no part is short
            self._corpus.text(first.source, first.start, first.start + 1)
        longest = self._locator.shortest_found if self._locator is not None else 0
        return ShortParts(
            self._corpus, (each for each in unread if each.end - each.start < longest)
        )

    async def close(self) -> None:
        """Release the index now: it may be large, and garbage collection may run late."""
        if self._locator is not None:
            await finish_despite_cancel(runtime.close_apart(setattr, self, "_locator", None))


class RunLocator:
    """Finds the parts of one run's prompts that are text of the root's document. Of several places
    with the same text, it takes one in the run's own part of the document, and the nearest to the
    part that was found last.

    Args:
        tree: Has the index.
        corpus: The run's document.

    Attributes:
        last: The part that was found last, or from which the run is expected to read.
    """

    def __init__(self, tree: PromptLocator, corpus: Corpus) -> None:
        self._spans = corpus.root_spans
        self._parts: LikelyParts | None = None
        first = self._spans[0] if self._spans else None
        self.last = None if first is None else SpanRef(first.source, first.start, first.start)
        self._tree = tree

    async def pieces(self, prompts: Sequence[str]) -> list[PromptPieces]:
        """The prompts as pieces. If the document's file has changed, each is recorded as one string
        without spans.
        """
        return await self._tree.pieces(prompts, self)

    def within(self, locator: Locator) -> LikelyParts | None:
        """The run's part of the root's document; None for all of it."""
        if self._parts is None and self._spans:
            self._parts = locator.likely_parts(self._spans)
        return self._parts


def _locate(
    locator: Locator, short: ShortParts | None, prompts: Sequence[str], run: RunLocator
) -> list[PromptPieces]:
    located: list[PromptPieces] = []
    within = run.within(locator)
    for prompt in prompts:
        spend(len(prompt))
        found = locator.locate(prompt, after=run.last, within=within)
        spans = found.spans
        run.last = spans[-1] if spans else run.last
        located.append(found if short is None else short.split(found))
    return located
