"""`llm_query`, `llm_batch` and `parallel_query`."""

import time
from collections.abc import Callable
from typing import Any

from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.gate import HostCall
from rlm_integrations.engine.host.arguments import Arguments, is_text, kind
from rlm_integrations.engine.sub_calls import SubCalls, note_batch, prompt_too_long
from rlm_integrations.engine.tree import Tree
from rlm_integrations.lm.prompts import CHUNK
from rlm_integrations.sandbox.base import HostCallError


class ModelFunctions:
    """Answers code's prompts with model calls.

    Args:
        tree: The objects that all runs of the tree share.
        asking: Makes the model calls of the run's code.
    """

    def __init__(self, tree: Tree, asking: SubCalls) -> None:
        self._asking = asking
        self._arguments = Arguments(tree.settings)
        self._most = tree.settings.limits.prompt_chars

    async def llm_query(self, call: HostCall, prompt: Any, model: Any = None) -> str:
        """Call a model with one prompt."""
        lm = self._arguments.model(model)
        if not isinstance(prompt, str):
            raise HostCallError(
                f"llm_query: the prompt must be a string, not {kind(prompt)}", type="TypeError"
            )
        return await self._asking.ask_one(call, call.id, prompt, lm)

    async def llm_batch(
        self, call: HostCall, prompts: Any, max_concurrent: Any = None, model: Any = None
    ) -> list[str]:
        """Call a model with many prompts concurrently."""
        check = self._arguments
        lm, width = check.model(model), check.width(max_concurrent)
        items = check.items("llm_batch", prompts, "the prompts must be a list of strings")
        begun = time.monotonic()
        replies = await self._asking.ask_all(call, item_ids(call), items, lm, width)
        note_batch(call.notebook, len(items), lm, begun)
        return replies

    async def parallel_query(
        self,
        call: HostCall,
        template: Any = None,
        chunks: Any = None,
        max_concurrent: Any = None,
        model: Any = None,
        *,
        prompt_template: Any = None,
        context_chunks: Any = None,
    ) -> list[str]:
        """Send one template for many chunks concurrently; only the literal {chunk} is replaced."""
        template = prompt_template if template is None else template
        chunks = context_chunks if chunks is None else chunks
        if not isinstance(template, str) or CHUNK not in template:
            raise HostCallError(
                f"parallel_query: the template must be a string with {CHUNK}, not {kind(template)}",
                type="ValueError",
            )
        check = self._arguments
        items = check.items("parallel_query", chunks, "the chunks must be a list of strings")
        lm, width = check.model(model), check.width(max_concurrent)
        begun = time.monotonic()
        places, rest = template.count(CHUNK), len(template.replace(CHUNK, ""))

        def filled(chunk: Any) -> Any:
            if not is_text(chunk):
                return chunk
            length = rest + places * len(chunk)
            return (
                template.replace(CHUNK, chunk)
                if length <= self._most
                else prompt_too_long(length, self._most)
            )

        replies = await self._asking.ask_all(call, item_ids(call), items, lm, width, fill=filled)
        note_batch(call.notebook, len(items), lm, begun)
        return replies


def item_ids(call: HostCall) -> Callable[[int], CallId]:
    """The identities of the items of a call."""
    return call.id.item
