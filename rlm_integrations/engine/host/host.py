"""The table of the host functions of one run."""

from collections.abc import Awaitable, Callable
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.lazy import LazyCorpus
from rlm_integrations.corpus.quotes import locate_quote
from rlm_integrations.engine import catalog
from rlm_integrations.engine.child_requests import Spawn
from rlm_integrations.engine.citations import MAX_QUOTE_CHARS
from rlm_integrations.engine.gate import Function, HostCall
from rlm_integrations.engine.host.arguments import kind
from rlm_integrations.engine.host.child_functions import ChildFunctions
from rlm_integrations.engine.host.model_functions import ModelFunctions
from rlm_integrations.engine.host.store_functions import StoreFunctions
from rlm_integrations.engine.host.text_functions import text_function
from rlm_integrations.engine.host.worker_functions import WorkerFunctions
from rlm_integrations.engine.notes import AmbiguousQuote, UncheckedQuote
from rlm_integrations.engine.sub_calls import SubCalls
from rlm_integrations.engine.tools import Tool
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef
from rlm_integrations.sandbox.base import HostCallError


class Host:
    """Answers the calls of one run's code.

    Args:
        tree: The objects that all runs of the tree share.
        corpus: The run's document.
        query: The run's question.
        depth: The run's depth.
        spawn: Creates child runs.
        worker: The run's name in the store.
        parent: The id of the run in the events.

    Attributes:
        asking: Makes the model calls of the code.
    """

    def __init__(
        self,
        tree: Tree,
        corpus: Corpus,
        *,
        query: str,
        depth: int,
        spawn: Spawn,
        worker: str,
        parent: str,
    ) -> None:
        locator = tree.locator_of(corpus)
        self.asking = SubCalls(tree, locator, query=query, depth=depth, parent=parent)
        self._tree = tree
        self._corpus = corpus
        self._models = ModelFunctions(tree, self.asking)
        self._children = ChildFunctions(tree, self.asking, spawn, depth, parent)
        self._workers = WorkerFunctions(tree, self._children)
        self._store = (
            None
            if tree.store is None
            else StoreFunctions(tree, self.asking, tree.store, corpus, worker)
        )

    def functions(self) -> list[Function]:
        """All functions that the REPL may call."""
        by_name = {**_methods(self._models), **_methods(self._children), "cite": self.cite}
        found = [
            Function(spec, by_name[spec.name], spec.name != "cite") for spec in catalog.FUNCTIONS
        ]
        if self._store is not None:
            by_name = {**_methods(self._workers), **_methods(self._store)}
            for spec in catalog.STORE_FUNCTIONS:
                name = spec.name.removeprefix("store.")
                found.append(Function(spec, by_name[name], name != "apply_commit"))
            found += [Function(spec, self._store.method(spec)) for spec in catalog.STORE_METHODS]
        if isinstance(self._corpus, LazyCorpus):
            found.append(text_function(self._corpus, self._tree.threads))
        return found + [
            Function(tool.spec, _tool_answer(tool)) for tool in self._tree.settings.tools
        ]

    async def cite(self, call: HostCall, quote: Any, source: Any = None) -> SpanRef | None:
        """The place of these words in the run's document, or None."""
        if not isinstance(quote, str) or not isinstance(source, str | None):
            raise HostCallError(
                f"cite: quote and source must be strings, not {kind(quote)} and {kind(source)}",
                type="TypeError",
            )
        if len(quote) > MAX_QUOTE_CHARS:
            raise HostCallError(
                f"cite: a quote has at most {MAX_QUOTE_CHARS:,} characters, not {len(quote):,}",
                type="ValueError",
            )
        try:
            hits = await self._tree.threads.free(locate_quote, self._corpus, quote, source)
        # The document's file has changed. No error: it would lose the block's paid replies
        except ContextError:
            call.note(UncheckedQuote())
            return None
        if len(hits) > 1:
            call.note(AmbiguousQuote(hits[0].span))
        return hits[0].span if hits else None


def _methods(functions: object) -> dict[str, Callable[..., Awaitable[Any]]]:
    """The public methods of a group of functions, by name."""
    return {name: getattr(functions, name) for name in dir(functions) if not name.startswith("_")}


def _tool_answer(tool: Tool) -> Callable[..., Awaitable[Any]]:
    async def answer(_call: HostCall, /, *args: Any, **kwargs: Any) -> Any:
        return await tool(*args, **kwargs)

    return answer
