"""The store of findings, as code calls it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine import catalog
from rlm_integrations.engine.gate import HostCall
from rlm_integrations.engine.sub_calls import SubCalls, note_batch
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import InputError
from rlm_integrations.records import HostFunction, SpanRef
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.store import SharedStore, WorkerStoreProxy
from rlm_integrations.store.commit import apply_commit
from rlm_integrations.store.content import length
from rlm_integrations.store.derive import AskMany, llm_map, llm_reduce

_CHARS_PER_TOKEN = 3
_SMALL = 10_000  # characters of an object that is read on the event loop
_UNKNOWN_WINDOW = 32_000  # tokens that a sub-model is assumed to read if it does not say


class StoreFunctions:
    """Reads and writes of one run in the store. What a call writes has the call as its origin.

    Args:
        tree: What the run shares.
        asking: Asks models for the run's code.
        store: The shared store.
        corpus: The run's own document.
        worker: The run's name in the store.
    """

    def __init__(
        self, tree: Tree, asking: SubCalls, store: SharedStore, corpus: Corpus, worker: str
    ) -> None:
        self._tree = tree
        self._asking = asking
        self._store = store
        self._corpus = corpus
        self._worker = worker

    def _for(self, call: HostCall) -> WorkerStoreProxy:
        worker = self._store.worker(self._worker, on_event=call.note, lift=self._lift)
        return worker.for_call(call.id.path)

    def _lift(self, span: SpanRef) -> SpanRef:
        """A span of this run's document as one of the root's."""
        lifted = self._corpus.lift(span)
        if lifted is None:
            raise InputError(
                f"{span} holds words that are not the document's: only the document can be referred to"
            )
        return lifted

    def method(self, spec: HostFunction) -> Callable[..., Awaitable[Any]]:
        """What answers a method of the store that asks no model."""
        name = spec.name.removeprefix("store.")
        signature = catalog.store_signature(name)

        async def answer(call: HostCall, /, *args: Any, **kwargs: Any) -> Any:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise HostCallError(
                    f"{spec.name}{spec.signature}: {error}", type="TypeError"
                ) from None
            store = self._for(call)
            method = getattr(store, name)
            try:
                if name == "get" and _is_small(store, *args[:1], *kwargs.values()):
                    return method(*args, **kwargs)
                return await self._tree.threads.query(method, *args, **kwargs)
            except TypeError as error:  # an argument of another type
                raise HostCallError(f"{spec.name}: {error}", type="TypeError") from None

        return answer

    async def apply_commit(
        self, call: HostCall, commit: Any, batch_prefix: Any = ""
    ) -> dict[str, Any]:
        """Merge a worker's commit into the store."""
        return await self._tree.threads.query(apply_commit, self._for(call), commit, batch_prefix)

    async def llm_map(self, call: HostCall, tasks: Any) -> str:
        """Ask every task's prompt and keep the replies."""
        away = self._tree.threads.query
        return await llm_map(self._for(call), tasks, self._ask_many(call), away=away)

    async def llm_reduce(self, call: HostCall, ids_or_query: Any, prompt: Any) -> str:
        """Fold objects into one."""
        window = (self._tree.settings.sub.context_window or _UNKNOWN_WINDOW) * _CHARS_PER_TOKEN
        ask, away = self._ask_many(call), self._tree.threads.query
        return await llm_reduce(
            self._for(call), ids_or_query, prompt, ask, window=window, away=away
        )

    def _ask_many(self, call: HostCall) -> AskMany:
        rounds = 0

        async def ask(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
            nonlocal rounds
            rounds += 1
            begun, coming = time.monotonic(), asyncio.Queue[tuple[int, str] | None]()
            sub, width = self._tree.settings.sub, self._tree.settings.max_parallel_calls
            asking = asyncio.ensure_future(
                self._asking.ask_all(
                    call,
                    call.id.item(rounds).item,
                    prompts,
                    sub,
                    width,
                    tell=lambda number, reply: coming.put_nowait((number, reply)),
                )
            )
            asking.add_done_callback(lambda _: coming.put_nowait(None))
            try:
                while (arrived := await coming.get()) is not None:
                    yield arrived
                await asking
                note_batch(call.notebook, len(prompts), sub, begun)
            finally:
                asking.cancel()
                await wait_until_done(asking)

        return ask


def _is_small(store: WorkerStoreProxy, id_: Any = None, *_: Any) -> bool:
    """Whether to read an object takes microseconds, and a thread would cost many times as much."""
    event = store.created(id_) if isinstance(id_, str) else None
    return event is None or length(event.content) <= _SMALL
