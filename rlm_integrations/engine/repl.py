"""The sandbox session of a run."""

import asyncio
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.gate import Gate
from rlm_integrations.engine.tree import Tree
from rlm_integrations.records import Message
from rlm_integrations.run_setup import PreviousRun
from rlm_integrations.sandbox.base import Opening, Session


class LazySession:
    """The sandbox session of a run. It is opened while the model is thinking, replaced if it is
    lost, and kept by a chat for its next question.

    Attributes:
        corpus: The document.
        history: The conversation of a chat so far.
        recorded: For messages that contain the whole document, by content: the recorded form.
        is_kept: Whether the session and its variables are kept after a cancelled question.
        blocks: The number of blocks that were run.
        previous: The stored run of the latest question of a chat.
        gate: Answers the calls of the code.
    """

    def __init__(self, corpus: Corpus, *, is_kept: bool = False) -> None:
        self.corpus = corpus
        self.history: list[Message] = []
        self.recorded: dict[str, str] = {}
        self.is_kept = is_kept
        self.blocks = 0
        self.previous: PreviousRun | None = None
        self.gate: Gate | None = None
        self._opening: asyncio.Task[Session] | None = None

    @property
    def session(self) -> Session | None:
        """The session, if there is one."""
        opening = self._opening
        return (
            opening.result()
            if opening is not None
            and opening.done()
            and not opening.cancelled()
            and not opening.exception()
            else None
        )

    @property
    def is_renewed(self) -> bool:
        """Whether the variables of earlier blocks are lost."""
        return self.blocks > 0 and self.session is None

    def begin(self, tree: Tree) -> "asyncio.Task[Session]":
        """Start to open the session if there is none."""
        if self._opening is None:
            settings = tree.settings
            specs = self.gate.specs if self.gate is not None else []
            self._opening = asyncio.ensure_future(
                settings.sandbox.open(Opening(self.corpus, specs, self._answer, settings.limits))
            )
        return self._opening

    async def opened(self, tree: Tree) -> Session:
        """The session, once it is open."""
        try:
            return await self.begin(tree)
        except BaseException:
            await self.close()  # the next call opens another
            raise

    async def _answer(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        if self.gate is None:
            raise RuntimeError("the session has no gate")
        return await self.gate(block, function, args, kwargs)

    async def close(self) -> None:
        """Close the session, even if it is still being opened."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()
        try:
            await wait_until_done(opening)
        finally:
            if not opening.cancelled() and opening.exception() is None:
                await finish_despite_cancel(opening.result().close())

    async def end(self, *, keep: object) -> None:
        """Close the session, and its document unless it is `keep`."""
        try:
            await self.close()
        finally:
            if self.corpus is not keep:
                # Releasing a gigabyte takes a while
                await finish_despite_cancel(runtime.close_apart(self.corpus.close))
