"""Child runs: over a part of the document, on the same event loop, with the same clients, limiter,
budget and store.
"""

import asyncio
from collections.abc import Sequence

from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.source import is_name
from rlm_integrations.corpus.spans import Hit, find_quote
from rlm_integrations.engine.answer import AnswerType
from rlm_integrations.engine.child_requests import ChildContext, ChildRequest, ChildResult, Spawn
from rlm_integrations.engine.citations import MAX_QUOTE_CHARS
from rlm_integrations.engine.locating import RunLocator
from rlm_integrations.engine.loop import Run
from rlm_integrations.engine.outcome import Outcome
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ContextError, ModelError
from rlm_integrations.events import ChildFinished, RunStarted
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import LLMError, SpanRef

# Characters of the document that are searched for short strings, per call
_MAX_SEARCHED_CHARS = 1_000_000_000


def spawner(tree: Tree, depth: int, corpus: Corpus) -> Spawn:
    """A function that creates the child runs of a run at this depth, over this document."""
    return lambda request: _Child(tree, depth, corpus, request)


class _Child:
    """One child run; see `ChildRun`."""

    def __init__(self, tree: Tree, depth: int, corpus: Corpus, request: ChildRequest) -> None:
        self.result: ChildResult | None = None
        self._tree = tree
        self._depth = depth + 1
        self._corpus = corpus
        self._request = request

    async def run(self) -> ChildResult:
        # Wait here, before the document is prepared, which takes memory
        async with self._tree.child_run(self._depth):
            spent = self._tree.purse.exhausted()
            if spent is not None:
                reply = LLMError("budget", f"the run's budget is spent ({spent})")
                self.result = ChildResult(reply)
                return self.result
            return await self._run()

    async def _run(self) -> ChildResult:
        tree, request = self._tree, self._request
        own = (
            self._corpus
            if request.context is None
            else await self._part(request.context, request.locator)
        )
        repl = LazySession(own)
        run = Run(
            tree,
            repl,
            query=request.query,
            path=request.path,
            depth=self._depth,
            typed=AnswerType(most=tree.settings.limits.answer_chars),
            spawn=spawner(tree, self._depth, own),
            worker=request.path.replace("/", "_"),
        )
        started = RunStarted(
            id=run.id,
            parent=request.parent,
            query=request.query,
            path=request.path,
            depth=self._depth,
            characters=own.characters,
        )
        tree.emit(started)
        reply: str = LLMError("error", "the child run ended without an answer")
        try:
            try:
                outcome = await run.run()
            finally:
                await repl.end(keep=self._corpus)
            reply = outcome.answer or _no_answer(outcome)
        except ModelError as error:
            run.outcome.stop_reason = "model_error"
            reply = LLMError(error.type, str(error))
        except ContextError as error:
            run.outcome.stop_reason = "sandbox_lost"
            reply = LLMError("context", str(error))
        except asyncio.CancelledError:
            run.outcome.stop_reason = "cancelled"
            reply = LLMError("cancelled", "the calling block ended first")
            raise
        finally:
            outcome = run.outcome
            self.result = ChildResult(
                reply,
                tuple(outcome.turns),
                tuple(outcome.citations),
                outcome.dropped_citations,
            )
            finished = ChildFinished(
                id=run.id,
                parent=request.parent,
                answer=reply,
                stop_reason=outcome.stop_reason,
            )
            tree.emit(finished)
        return self.result

    async def _part(self, context: ChildContext, locator: RunLocator) -> Corpus:
        """The context that code passed, as a document. Parts of it that are in the root's document
        are shared, and can be cited.
        """
        is_list, names = not isinstance(context, str), None
        texts = [context] if isinstance(context, str) else list(context)
        if isinstance(context, dict):
            texts = list(context.values())
            names = list(context) if all(map(is_name, context)) else None
        located = await locator.pieces(texts)
        try:
            return await self._tree.threads.make(
                _slice, self._tree.corpus, texts, located, is_list=is_list, names=names
            )
        # The document's file has changed: the child reads the strings, and cannot cite
        except ContextError:
            return await self._tree.threads.make(
                self._tree.corpus.slice, texts, is_list=is_list, names=names
            )


def _no_answer(outcome: Outcome) -> LLMError:
    if outcome.stop_reason.startswith("budget"):
        return LLMError(
            "budget", outcome.error or f"the child run gave no answer ({outcome.stop_reason})"
        )
    return LLMError("empty", f"the child run gave no answer ({outcome.stop_reason})")


def _slice(
    corpus: Corpus,
    texts: Sequence[str],
    located: Sequence[PromptPieces],
    *,
    is_list: bool,
    names: Sequence[str] | None,
) -> Corpus:
    parts: list[SpanRef | str | Sequence[SpanRef | str]] = []
    searched = 0
    for text, pieces in zip(texts, located, strict=True):
        hits: list[Hit] = []
        spend(len(text))
        # A short string may be below the locator's minimum
        if not pieces.spans and len(text) <= MAX_QUOTE_CHARS and searched < _MAX_SEARCHED_CHARS:
            searched += corpus.characters_read
            hits = find_quote(corpus, text, limit=1, exactly=True)
        if hits:
            parts.append(hits[0].span)
        else:
            parts.append(pieces.pieces[0] if len(pieces.pieces) == 1 else pieces.pieces or "")
    return corpus.slice(parts, is_list=is_list, names=names)
