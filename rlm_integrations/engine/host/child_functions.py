"""`recursive_lm`, `rlm_query` and their batches: questions to child runs, or at the maximum depth
to the sub-model.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from rlm_integrations._concurrency.pool import pool
from rlm_integrations.engine import prompts
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.child_requests import ChildAnswer, ChildContext, ChildRequest, Spawn
from rlm_integrations.engine.gate import HostCall
from rlm_integrations.engine.host.arguments import Arguments, kind, required_text
from rlm_integrations.engine.journal import Answer, keep_answer
from rlm_integrations.engine.sub_calls import SubCalls, prompt_too_long
from rlm_integrations.engine.tree import Tree
from rlm_integrations.prompt_pieces import literal
from rlm_integrations.records import LLMError
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.trajectory import SubCall

_LOCATED_CHARS = 10_000  # characters: document text is not looked for in shorter questions


class ChildFunctions:
    """Answers questions of code with child runs.

    Args:
        tree: The objects that all runs of the tree share.
        asking: Makes the model calls of the run's code.
        spawn: Creates child runs.
        depth: The run's depth.
        parent: The id of the run in the events.
    """

    def __init__(self, tree: Tree, asking: SubCalls, spawn: Spawn, depth: int, parent: str) -> None:
        self._tree = tree
        self._asking = asking
        self._spawn = spawn
        self._depth = depth
        self._parent = parent
        self._arguments = Arguments(tree.settings)

    async def recursive_lm(self, call: HostCall, query: Any, context_subset: Any) -> str:
        """Answer a question over a part of the document."""
        return await self._answer_over(call, call.id, query, context_subset)

    async def recursive_batch(self, call: HostCall, tasks: Any) -> list[str]:
        """Answer several questions concurrently; a malformed task becomes an `LLMError` in its own
        slot.
        """
        items = self._arguments.items(
            "recursive_batch", tasks, 'the tasks must be a list of {"query": …, "context": …}'
        )

        async def one(id_: CallId, task: Any) -> str:
            fields = task if isinstance(task, dict) else {}
            return await self._answer_over(call, id_, fields.get("query"), fields.get("context"))

        return await self._each(call, items, one)

    async def rlm_query(
        self, call: HostCall, prompt: Any, context: Any = None, model: Any = None
    ) -> str:
        """Answer a prompt that contains its context, as in other libraries, or a question over a
        context.
        """
        return await self._answer_prompt(call, call.id, prompt, context, model)

    async def rlm_query_batched(self, call: HostCall, prompts: Any, model: Any = None) -> list[str]:
        """Answer several prompts concurrently; each may also be a task of `recursive_batch`."""
        items = self._arguments.items("rlm_query_batched", prompts, "the prompts must be a list")
        self._arguments.model(model)

        async def one(id_: CallId, prompt: Any) -> str:
            is_task = isinstance(prompt, dict)
            query, context = (
                (prompt.get("query"), prompt.get("context")) if is_task else (prompt, None)
            )
            return await self._answer_prompt(call, id_, query, context, model)

        return await self._each(call, items, one)

    async def _each(
        self, call: HostCall, items: list[Any], answer: Callable[[CallId, Any], Awaitable[str]]
    ) -> list[str]:
        replies: list[str] = [""] * len(items)

        async def one(number: int, item: Any) -> None:
            try:
                replies[number] = await answer(call.id.item(number), item)
            except HostCallError as error:
                replies[number] = LLMError("input", str(error))

        width = min(len(items), self._tree.settings.max_parallel_calls)
        await pool(items, one, max(1, width))
        return replies

    async def _answer_prompt(
        self, call: HostCall, id_: CallId, prompt: Any, context: Any, model: Any
    ) -> str:
        if model is None and isinstance(context, str) and context in self._tree.settings.subs:
            context, model = None, context  # the second argument in other libraries
        lm = self._arguments.model(model)
        if context is not None:
            return await self._answer_over(call, id_, prompt, context)
        prompt = required_text(id_.function, "prompt", prompt)
        if model is not None or not self.asks_children():
            return await self._asking.ask_one(call, id_, prompt, lm)
        return await self.answer(call, id_, prompts.IN_CONTEXT, prompt)

    async def _answer_over(self, call: HostCall, id_: CallId, query: Any, context: Any) -> str:
        query = required_text(id_.function, "query", query)
        texts = [*context, *context.values()] if isinstance(context, dict) else context
        if not isinstance(texts, str) and not (
            isinstance(texts, list) and await self._tree.threads.free(_are_strings, texts)
        ):
            raise HostCallError(
                f"{id_.function}: the context must be a string, or a list or dict of strings, "
                f"not {kind(context)}",
                type="TypeError",
            )
        return await self.answer(call, id_, query, context)

    def asks_children(self) -> bool:
        """Whether child runs are possible: below the maximum depth, and before the closing turn."""
        return not self._asking.closed and self._depth + 1 < self._tree.settings.max_depth

    async def answer(
        self, call: HostCall, id_: CallId, query: str, context: ChildContext | None
    ) -> str:
        """The answer of a child run or of the sub-model.

        Args:
            call: The call of the code.
            id_: The identity of this question, which is the path of the child run.
            query: The question.
            context: The part of the document, or None for all of it.
        """
        if self.asks_children():
            return await self._child_answer(call, id_, query, context)
        texts = (
            [context]
            if isinstance(context, str)
            else [part for named in context.items() for part in named]
            if isinstance(context, dict)
            else context or []
        )
        most = self._tree.settings.limits.prompt_chars
        length = len(query) + sum(map(len, texts)) + 2 * len(texts)
        if length > most:
            return prompt_too_long(length, most)
        prompt = "\n\n".join([f"Question: {query}", *texts])
        return await self._asking.ask_one(call, id_, prompt, self._tree.settings.sub)

    async def _child_answer(
        self, call: HostCall, id_: CallId, query: str, context: ChildContext | None
    ) -> str:
        known = self._tree.find(id_)
        if known is not None and isinstance(answer := known.value, ChildAnswer):
            self._tree.models.charge_again(id_.run, answer.charges)
            note = self._note(call, id_, query, answer, replayed=True)
        else:
            await call.wait_if_missing(id_)
            answer = await self._run_child(call, id_, query, context)
            note = self._note(call, id_, query, answer)
        await call.notebook.note_despite_cancel(note)
        return answer.result.reply

    async def _run_child(
        self, call: HostCall, id_: CallId, query: str, context: ChildContext | None
    ) -> ChildAnswer:
        tree, begun = self._tree, self._tree.clock.now()
        child = self._spawn(
            ChildRequest(id_.path, query, context, self._parent, self._asking.locator)
        )
        try:
            with tree.models.account(id_.path) as charges:
                result = await child.run()
        except BaseException:
            if child.result is not None:  # its paid calls stay in the record
                partial = ChildAnswer(child.result, (), begun, tree.clock.now())
                await call.notebook.note_despite_cancel(self._note(call, id_, query, partial))
            raise
        answer = ChildAnswer(result, tuple(charges), begun, tree.clock.now())
        await keep_answer(tree.journal, id_, Answer(answer))
        return answer

    async def _note(
        self,
        call: HostCall,
        id_: CallId,
        query: str,
        answer: ChildAnswer,
        *,
        replayed: bool = False,
    ) -> None:
        result = answer.result
        is_own = len(query) < _LOCATED_CHARS and not result.turns
        located = [literal(query)] if is_own else await self._asking.locator.pieces([query])
        call.notebook.add(
            SubCall(
                path=id_.path,
                function=call.id.function,
                model="",
                prompt=located[0],
                reply=result.reply,
                depth=self._depth + 1,
                start=answer.start,
                end=answer.end,
                replayed=replayed,
                turns=result.turns,
                citations=result.citations,
                dropped_citations=result.dropped_citations,
            )
        )


def _are_strings(values: list[Any]) -> bool:
    return all(isinstance(each, str) for each in values)
