"""`rlm_worker`, its batch, and `apply_commit`."""

from typing import Any

from rlm_integrations._concurrency.pool import pool
from rlm_integrations.engine import prompts
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.gate import HostCall, is_large
from rlm_integrations.engine.host.arguments import Arguments, required_text
from rlm_integrations.engine.host.child_functions import ChildFunctions
from rlm_integrations.engine.tree import Tree
from rlm_integrations.records import LLMError
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.store.commit import commit_of


class WorkerFunctions:
    """Runs workers that explore the document. The answer of each is a commit for the store.

    Args:
        tree: The objects that all runs of the tree share.
        children: Makes the child runs of the run's code.
    """

    def __init__(self, tree: Tree, children: ChildFunctions) -> None:
        self._tree = tree
        self._children = children
        self._arguments = Arguments(tree.settings)

    async def rlm_worker(
        self, call: HostCall, prompt: Any, store_cards: Any = None
    ) -> dict[str, Any]:
        """Run a child over the whole document; its answer is a commit."""
        return await self._work(call, call.id, prompt, store_cards)

    async def rlm_worker_batched(
        self, call: HostCall, tasks: Any, max_parallel: Any = None
    ) -> list[dict[str, Any]]:
        """Run several workers concurrently; a task is a prompt, or {"prompt", "store_cards"}."""
        check = self._arguments
        items = check.items("rlm_worker_batched", tasks, "the tasks must be a list of prompts")
        commits: list[dict[str, Any]] = [{} for _ in items]

        async def one(number: int, task: Any) -> None:
            fields = task if isinstance(task, dict) else {"prompt": task}
            id_ = call.id.item(number)
            try:
                commits[number] = await self._work(
                    call, id_, fields.get("prompt"), fields.get("store_cards")
                )
            except HostCallError as error:
                commits[number] = _failed(id_, str(error))

        width = check.width(max_parallel, "max_parallel")
        await pool(items, one, max(1, min(len(items), width)))
        return commits

    async def _work(self, call: HostCall, id_: CallId, prompt: Any, cards: Any) -> dict[str, Any]:
        prompt = required_text("rlm_worker", "prompt", prompt)
        if is_large(cards):
            raise HostCallError(
                "rlm_worker: store_cards are too large: pass a few cards, such as "
                "store.card_view('type=claim')",
                type="ValueError",
            )
        query = prompts.worker_question(prompt, cards, has_repl=self._children.asks_children())
        reply = await self._children.answer(call, id_, query, None)
        if isinstance(reply, LLMError):
            return _failed(id_, str(reply))
        return await self._tree.threads.query(commit_of, reply, _commit_id(id_))


def _failed(id_: CallId, error: str) -> dict[str, Any]:
    return {**commit_of({"creates": []}, _commit_id(id_)), "error": error}


def _commit_id(id_: CallId) -> str:
    return id_.path.replace("/", "_")
