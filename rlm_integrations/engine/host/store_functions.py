"""The store functions of model code."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine import catalog
from rlm_integrations.engine.answer_codec import encode_answer
from rlm_integrations.engine.gate import HostCall
from rlm_integrations.engine.journal import Answer
from rlm_integrations.engine.sub_calls import SubCalls, note_batch
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import InputError, JournalError, StorageError
from rlm_integrations.records import HostFunction, SpanRef
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.store import SharedStore, WorkerStoreProxy
from rlm_integrations.store.commit import apply_commit
from rlm_integrations.store.content import length
from rlm_integrations.store.derive import AskMany, llm_map, llm_reduce
from rlm_integrations.store.log import Created, StoreEvent
from rlm_integrations.store.worker import RecordCall

# Takes the proxy first
Method = Callable[..., Any]

_CHARS_PER_TOKEN = 3
_ON_LOOP_CHARS = 10_000  # characters: shorter objects are read on the event loop
_DEFAULT_WINDOW = 32_000  # tokens: assumed if the sub-model does not have a context_window


class StoreFunctions:
    """The reads and writes of one run in the store. The origin of each write is the call's path.

    Args:
        tree: The objects that all runs of the tree share.
        asking: Makes the model calls of the run's code.
        store: The shared store.
        corpus: The run's document.
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

    def _for(self, call: HostCall, record: RecordCall | None = None) -> WorkerStoreProxy:
        # Events that the store itself keeps are not for the journal
        note = call.notebook.add_note if self._store.backend.keeps_records else call.note
        worker = self._store.worker(self._worker, on_event=note, lift=self._lift)
        return worker.for_call(call.id.path, record)

    async def _query(self, call: HostCall, method: Method, *args: Any, **kwargs: Any) -> Any:
        """What a method returns that takes the worker's proxy and writes at most once.

        If the store keeps records, it keeps that of the call in one unit with the events.
        """
        if not self._store.backend.keeps_records:
            return await self._away(method, self._for(call), *args, **kwargs)

        def record(value: Any, events: Sequence[StoreEvent]) -> tuple[str, bytes]:
            call.is_recorded = True
            answer = Answer(value, tuple(map(_without_content, events)))
            return call.id.path, encode_answer(call.id, answer)

        store = self._for(call, None if self._tree.kept is None else record)
        try:
            return await self._away(method, store, *args, **kwargs)
        except InputError:
            call.is_recorded = False
            raise

    async def _away(self, method: Method, *args: Any, **kwargs: Any) -> Any:
        """Read or write in a thread. An error of the database is the host's, not the code's."""
        try:
            return await self._tree.threads.query(method, *args, **kwargs)
        except StorageError as error:
            raise JournalError(f"the store failed: {error}") from error

    def _lift(self, span: SpanRef) -> SpanRef:
        """Convert a span of this run's document to one of the root's document."""
        lifted = self._corpus.lift(span)
        if lifted is None:
            raise InputError(
                f"{span} has text that is not in the document; spans must refer to the document"
            )
        return lifted

    def method(self, spec: HostFunction) -> Callable[..., Awaitable[Any]]:
        """The implementation of a store method that makes no model calls."""
        name = spec.name.removeprefix("store.")
        signature = catalog.store_signature(name)

        async def answer(call: HostCall, /, *args: Any, **kwargs: Any) -> Any:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise HostCallError(
                    f"{spec.name}{spec.signature}: {error}", type="TypeError"
                ) from None
            try:
                if name == "get" and not self._store.backend.keeps_records:
                    store = self._for(call)
                    if _is_small(store, *args[:1], *kwargs.values()):
                        return store.get(*args, **kwargs)
                return await self._query(call, getattr(WorkerStoreProxy, name), *args, **kwargs)
            except TypeError as error:  # an argument of the wrong type
                raise HostCallError(f"{spec.name}: {error}", type="TypeError") from None

        return answer

    async def apply_commit(
        self, call: HostCall, commit: Any, batch_prefix: Any = ""
    ) -> dict[str, Any]:
        """Merge a worker's commit into the store."""
        done: dict[str, Any] = await self._query(call, apply_commit, commit, batch_prefix)
        return done

    async def llm_map(self, call: HostCall, tasks: Any) -> str:
        """Call the sub-model for every task, and store the replies."""
        return await llm_map(self._for(call), tasks, self._ask_many(call), away=self._away)

    async def llm_reduce(self, call: HostCall, ids_or_query: Any, prompt: Any) -> str:
        """Reduce objects to one."""
        window = (self._tree.settings.sub.context_window or _DEFAULT_WINDOW) * _CHARS_PER_TOKEN
        ask = self._ask_many(call)
        return await llm_reduce(
            self._for(call), ids_or_query, prompt, ask, window=window, away=self._away
        )

    def _ask_many(self, call: HostCall) -> AskMany:
        rounds = 0

        async def ask(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
            nonlocal rounds
            rounds += 1
            begun, arrivals = time.monotonic(), asyncio.Queue[tuple[int, str] | None]()
            sub, width = self._tree.settings.sub, self._tree.settings.max_parallel_calls
            asking = asyncio.ensure_future(
                self._asking.ask_all(
                    call,
                    call.id.item(rounds).item,
                    prompts,
                    sub,
                    width,
                    on_reply=lambda number, reply: arrivals.put_nowait((number, reply)),
                )
            )
            asking.add_done_callback(lambda _: arrivals.put_nowait(None))
            try:
                while (arrived := await arrivals.get()) is not None:
                    yield arrived
                await asking
                note_batch(call.notebook, len(prompts), sub, begun)
            finally:
                asking.cancel()
                await wait_until_done(asking)

        return ask


def _without_content(event: StoreEvent) -> StoreEvent:
    """The event as a record of a call has it: the store has its content."""
    return replace(event, content="") if isinstance(event, Created) else event


def _is_small(store: WorkerStoreProxy, id_: Any = None, *_: Any) -> bool:
    """Whether reading an object takes only microseconds, less than starting a thread."""
    event = store.created(id_) if isinstance(id_, str) else None
    return event is None or length(event.content) <= _ON_LOOP_CHARS
