"""What REPL code may call, as the host answers it. Every argument is hostile: its type and size are
checked here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations._concurrency.pool import pool
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.quotes import locate_quote
from rlm_integrations.engine import catalog
from rlm_integrations.engine.child_requests import ChildRequest, ChildResult, Spawn
from rlm_integrations.engine.citations import MAX_CITATIONS, MAX_QUOTE_CHARS
from rlm_integrations.engine.gate import CallId, Function, is_large
from rlm_integrations.engine.notebook import Notebook
from rlm_integrations.engine.sub_calls import SubCalls, kind, prompt_too_long
from rlm_integrations.engine.tools import Tool
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.prompts import CHUNK
from rlm_integrations.prompt_pieces import literal
from rlm_integrations.records import HostFunction, LLMError, SpanRef
from rlm_integrations.result import SubCall
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.store import WorkerStoreProxy
from rlm_integrations.store.commit import apply_commit, commit_of
from rlm_integrations.store.content import length
from rlm_integrations.store.derive import llm_map, llm_reduce
from rlm_integrations.store.log import StoreEvent

_CHARACTERS_PER_TOKEN = 3
_SMALL = 10_000  # characters of an object that is read on the event loop
_UNKNOWN_WINDOW = 32_000  # tokens that a sub-model is taken to read where it does not say


class Host(SubCalls):
    """Answers the calls of one run's REPL.

    Args:
        tree: What the run shares with the others of its tree.
        corpus: The run's own document.
        query: The run's question.
        depth: The run's depth.
        spawn: Has a child run answer a question.
        worker: The run's name in the store.
        parent: The id of the run in the events.

    Attributes:
        notebook: What the block that runs now has done.
        closed: Why no model can be asked any more, or "".
        ambiguous: Places whose words `cite` found elsewhere too.
        unchecked: How many quotes `cite` could not look up, because the document's file has
            changed.
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
        super().__init__(tree, query=query, depth=depth, parent=parent)
        self._corpus = corpus
        self._spawn = spawn
        self._store: WorkerStoreProxy | None = None
        if tree.store is not None:
            self._store = tree.store.worker(worker, on_event=self._note_store, lift=self._lift)
        self.ambiguous: set[SpanRef] = set()
        self.unchecked = 0

    def _note_store(self, event: StoreEvent) -> None:
        self.notebook.note_store(event)

    def functions(self) -> list[Function]:
        """Everything that the REPL may call."""
        specs = [*catalog.FUNCTIONS, *(catalog.STORE_FUNCTIONS if self._store is not None else ())]
        found = [Function(spec, getattr(self, spec.name.removeprefix("store."))) for spec in specs]
        if self._store is not None:
            found += [Function(spec, self._store_method(spec)) for spec in catalog.STORE_METHODS]
        return found + [
            Function(tool.spec, _tool_answer(tool)) for tool in self._tree.settings.tools
        ]

    # Models.

    async def llm_query(self, call: CallId, prompt: Any, model: Any = None) -> str:
        """Ask a model once."""
        lm = self._model(model)
        if not isinstance(prompt, str):
            raise HostCallError(
                f"llm_query: the prompt must be a text, not {kind(prompt)}", type="TypeError"
            )
        return (await self.ask_all("llm_query", lambda _: call.path("q"), [prompt], lm, 1))[0]

    async def llm_batch(
        self, call: CallId, prompts: Any, max_concurrent: Any = None, model: Any = None
    ) -> list[str]:
        """Ask a model many prompts at once."""
        lm, width = self._model(model), self._width(max_concurrent)
        if not isinstance(prompts, list):
            raise HostCallError(
                f"llm_batch: the prompts must be a list of texts, not {kind(prompts)}",
                type="TypeError",
            )
        self._check_count("llm_batch", prompts)
        begun = time.monotonic()
        replies = await self.ask_all("llm_batch", _numbered(call, "b"), prompts, lm, width)
        self.note_batch(len(prompts), lm, begun)
        return replies

    async def parallel_query(
        self,
        call: CallId,
        template: Any = None,
        chunks: Any = None,
        max_concurrent: Any = None,
        model: Any = None,
        *,
        prompt_template: Any = None,
        context_chunks: Any = None,
    ) -> list[str]:
        """Ask the same about many chunks at once; only the literal {chunk} is replaced."""
        template = prompt_template if template is None else template
        chunks = context_chunks if chunks is None else chunks
        if not isinstance(template, str) or CHUNK not in template:
            raise HostCallError(
                f"parallel_query: the template must be a text that holds {CHUNK}, not {kind(template)}",
                type="ValueError",
            )
        if not isinstance(chunks, list):
            raise HostCallError(
                f"parallel_query: the chunks must be a list of texts, not {kind(chunks)}",
                type="TypeError",
            )
        self._check_count("parallel_query", chunks)
        lm, width = self._model(model), self._width(max_concurrent)
        begun = time.monotonic()
        most, places, rest = (
            self._tree.settings.limits.prompt_chars,
            template.count(CHUNK),
            len(template.replace(CHUNK, "")),
        )

        def filled(chunk: Any) -> Any:
            if not _is_text(chunk):
                return chunk
            length = rest + places * len(chunk)
            return (
                template.replace(CHUNK, chunk) if length <= most else prompt_too_long(length, most)
            )

        replies = await self.ask_all(
            "parallel_query", _numbered(call, "p"), chunks, lm, width, fill=filled
        )
        self.note_batch(len(chunks), lm, begun)
        return replies

    def _model(self, name: Any) -> LM:
        """A registered model: never an address, which could be anybody's."""
        subs = self._tree.settings.subs
        if name is None:
            return self._tree.settings.sub
        if isinstance(name, str) and name in subs:
            return subs[name]
        shown = repr(name[:60]) if isinstance(name, str) else kind(name)
        raise HostCallError(
            f"model={shown} is not registered; there are: {', '.join(map(repr, subs))}",
            type="ValueError",
        )

    def _check_count(self, function: str, items: list[Any]) -> None:
        most = self._tree.settings.limits.batch_items
        if len(items) > most:
            raise HostCallError(
                f"{function}: a batch has at most {most:,} items, not {len(items):,}: make several",
                type="ValueError",
            )

    def _width(self, width: Any, name: str = "max_concurrent") -> int:
        if width is None:
            return self._tree.settings.max_parallel_calls
        if type(width) is not int or width < 1:
            raise HostCallError(f"{name} must be an integer of at least 1", type="ValueError")
        return min(width, self._tree.settings.max_parallel_calls)

    # Children.

    async def recursive_lm(self, call: CallId, query: Any, context_subset: Any) -> str:
        """Have a question over a part of the document answered: by a child run, or at the limit of
        depth by the sub-model.
        """
        return await self._child("recursive_lm", call.path("c"), query, context_subset)

    async def recursive_batch(self, call: CallId, tasks: Any) -> list[str]:
        """Have several answered at once; a task that is none fails alone."""
        if not isinstance(tasks, list):
            raise HostCallError(
                'recursive_batch: a list of {"query": …, "context": …} is needed', type="TypeError"
            )
        self._check_count("recursive_batch", tasks)
        replies: list[str] = [""] * len(tasks)

        async def one(number: int, task: Any) -> None:
            given = task if isinstance(task, dict) else {}
            path = f"{call.path('c')}.{number}"
            try:
                replies[number] = await self._child(
                    "recursive_batch", path, given.get("query"), given.get("context")
                )
            except HostCallError as error:
                replies[number] = LLMError("input", str(error))

        await pool(tasks, one, max(1, min(len(tasks), self._tree.settings.max_parallel_calls)))
        return replies

    async def rlm_query(
        self, call: CallId, prompt: Any, context: Any = None, model: Any = None
    ) -> str:
        """Have a prompt answered that holds all it needs, as other libraries' models write it; or a
        question over a context.
        """
        return await self._prompted("rlm_query", call.path("c"), prompt, context, model)

    async def rlm_query_batched(self, call: CallId, prompts: Any, model: Any = None) -> list[str]:
        """Have several prompts answered at once; one may be a task of `recursive_batch`."""
        if not isinstance(prompts, list):
            raise HostCallError(
                f"rlm_query_batched: the prompts must be a list, not {kind(prompts)}",
                type="TypeError",
            )
        self._check_count("rlm_query_batched", prompts)
        self._model(model)
        replies: list[str] = [""] * len(prompts)

        async def one(number: int, prompt: Any) -> None:
            query, context = (
                (prompt.get("query"), prompt.get("context"))
                if isinstance(prompt, dict)
                else (prompt, None)
            )
            try:
                replies[number] = await self._prompted(
                    "rlm_query_batched", f"{call.path('c')}.{number}", query, context, model
                )
            except HostCallError as error:
                replies[number] = LLMError("input", str(error))

        await pool(prompts, one, max(1, min(len(prompts), self._tree.settings.max_parallel_calls)))
        return replies

    async def _prompted(
        self, function: str, path: str, prompt: Any, context: Any, model: Any
    ) -> str:
        if model is None and isinstance(context, str) and context in self._tree.settings.subs:
            context, model = None, context  # elsewhere the second argument is the model
        lm = self._model(model)
        if context is not None:
            return await self._child(function, path, prompt, context)
        if not isinstance(prompt, str) or not prompt.strip():
            raise HostCallError(
                f"{function}: the prompt must be a string that is not empty, not {kind(prompt)}",
                type="ValueError",
            )
        if model is not None or self._asks_no_child():
            return (await self.ask_all(function, lambda _: path, [prompt], lm, 1))[0]
        return await self._answered(function, path, _IN_CONTEXT, prompt)

    def _asks_no_child(self) -> bool:
        return bool(self.closed) or self._depth + 1 >= self._tree.settings.max_depth

    async def _child(self, function: str, path: str, query: Any, context: Any) -> str:
        if not isinstance(query, str) or not query.strip():
            raise HostCallError(
                f"{function}: the query must be a text that is not empty", type="ValueError"
            )
        if not isinstance(context, str) and not (
            isinstance(context, list) and await self._tree.threads.free(_are_texts, context)
        ):
            raise HostCallError(
                f"{function}: the context must be a text or a list of texts, not {kind(context)}",
                type="TypeError",
            )
        return await self._answered(function, path, query, context)

    async def _answered(
        self, function: str, path: str, query: str, context: str | list[str] | None
    ) -> str:
        """The answer of a child run, or of the sub-model where the depth allows no child, or nobody
        can be asked any more.
        """
        if self._asks_no_child():
            texts = [context] if isinstance(context, str) else context or []
            most = self._tree.settings.limits.prompt_chars
            length = len(query) + sum(map(len, texts)) + 2 * len(texts)
            if length > most:
                return prompt_too_long(length, most)
            prompt = "\n\n".join([f"Question: {query}", *texts])
            return (
                await self.ask_all(function, lambda _: path, [prompt], self._tree.settings.sub, 1)
            )[0]
        notebook, begun, children = self.notebook, time.monotonic(), list[ChildResult]()
        try:
            return await self._spawn(
                ChildRequest(path, query, context, self._parent, children.append)
            )
        finally:
            for child in children:
                await notebook.note(self._note_child(notebook, function, path, query, child, begun))

    async def _note_child(
        self,
        notebook: Notebook,
        function: str,
        path: str,
        query: str,
        child: ChildResult,
        begun: float,
    ) -> None:
        located = (
            [literal(query)]
            if len(query) < _SMALL and not child.turns
            else await self._tree.pieces([query])
        )
        notebook.add(
            SubCall(
                path=path,
                function=function,
                model="",
                prompt=located[0],
                reply=child.reply,
                depth=self._depth + 1,
                start=self._tree.since(begun),
                end=self._tree.since(time.monotonic()),
                turns=child.turns,
                citations=child.citations,
                dropped_citations=child.dropped_citations,
            )
        )

    # Workers.

    async def rlm_worker(
        self, call: CallId, prompt: Any, store_cards: Any = None
    ) -> dict[str, Any]:
        """Have a child explore the whole document; its answer is a commit."""
        return await self._work(prompt, store_cards, call.path("w"))

    async def rlm_worker_batched(
        self, call: CallId, tasks: Any, max_parallel: Any = None
    ) -> list[dict[str, Any]]:
        """Several workers at once; a task is a prompt, or {"prompt", "store_cards"}."""
        if not isinstance(tasks, list):
            raise HostCallError("rlm_worker_batched: a list of prompts is needed", type="TypeError")
        self._check_count("rlm_worker_batched", tasks)
        commits: list[dict[str, Any]] = [{} for _ in tasks]

        async def one(number: int, task: Any) -> None:
            prompt, cards = (
                (task.get("prompt"), task.get("store_cards"))
                if isinstance(task, dict)
                else (task, None)
            )
            path = f"{call.path('w')}.{number}"
            try:
                commits[number] = await self._work(prompt, cards, path)
            except HostCallError as error:
                commits[number] = {
                    **commit_of({"creates": []}, _commit_id(path)),
                    "error": str(error),
                }

        await pool(tasks, one, max(1, min(len(tasks), self._width(max_parallel, "max_parallel"))))
        return commits

    async def _work(self, prompt: Any, cards: Any, path: str) -> dict[str, Any]:
        if not isinstance(prompt, str) or not prompt.strip():
            raise HostCallError(
                "rlm_worker: the prompt must be a text that is not empty", type="ValueError"
            )
        if is_large(cards):
            raise HostCallError(
                "rlm_worker: store_cards are too large: pass a few cards, such as store.card_view('type=claim')",
                type="ValueError",
            )
        known = f"\n\nKnown so far:\n{cards}" if cards else ""
        form = (
            f"{_NO_DOCUMENT} Answer with JSON alone: {_COMMIT}"
            if self._asks_no_child()
            else f"Finish with FINAL of a dict: {_COMMIT}"
        )
        reply = await self._answered("rlm_worker", path, f"{prompt}{known}\n\n{form}", None)
        if isinstance(reply, LLMError):
            return {**commit_of({"creates": []}, _commit_id(path)), "error": str(reply)}
        return await self._tree.threads.query(commit_of, reply, _commit_id(path))

    async def apply_commit(
        self, _call: CallId, commit: Any, batch_prefix: Any = ""
    ) -> dict[str, Any]:
        """Merge a worker's commit into the store."""
        return await self._tree.threads.query(
            apply_commit, self._required_store(), commit, batch_prefix
        )

    # The document and the store.

    async def cite(self, _call: CallId, quote: Any, source: Any = None) -> SpanRef | None:
        """Where the run's document holds these words."""
        if not isinstance(quote, str) or not isinstance(source, str | None):
            raise HostCallError(
                f"cite: quote and source must be texts, not {kind(quote)} and {kind(source)}",
                type="TypeError",
            )
        if len(quote) > MAX_QUOTE_CHARS:
            raise HostCallError(
                f"cite: a quote has at most {MAX_QUOTE_CHARS:,} characters, not {len(quote):,}",
                type="ValueError",
            )
        try:
            hits = await self._tree.threads.free(locate_quote, self._corpus, quote, source)
        # Its file has changed; what the block has paid for must not be lost for that
        except ContextError:
            self.unchecked += 1
            return None
        if len(hits) > 1 and len(self.ambiguous) < MAX_CITATIONS:
            self.ambiguous.add(hits[0].span)
        return hits[0].span if hits else None

    def _required_store(self) -> WorkerStoreProxy:
        if self._store is None:
            raise HostCallError("this run has no store")
        return self._store

    def _store_method(self, spec: HostFunction) -> Callable[..., Awaitable[Any]]:
        name = spec.name.removeprefix("store.")
        method, signature = getattr(self._required_store(), name), catalog.store_signature(name)

        async def answer(_call: CallId, /, *args: Any, **kwargs: Any) -> Any:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise HostCallError(
                    f"{spec.name}{spec.signature}: {error}", type="TypeError"
                ) from None
            try:
                if name == "get" and self._is_small(*args[:1], *kwargs.values()):
                    return method(*args, **kwargs)
                return await self._tree.threads.query(method, *args, **kwargs)
            except TypeError as error:  # an argument of another type
                raise HostCallError(f"{spec.name}: {error}", type="TypeError") from None

        return answer

    def _is_small(self, id_: Any = None, *_: Any) -> bool:
        """Whether to read an object takes microseconds, which a thread would cost many times over."""
        event = self._required_store().created(id_) if isinstance(id_, str) else None
        return event is None or length(event.content) <= _SMALL

    def _lift(self, span: SpanRef) -> SpanRef:
        """A span of this run's document as one of the root's."""
        lifted = self._corpus.lift(span)
        if lifted is None:
            raise InputError(
                f"{span} holds words that are not the document's: only the document can be referred to"
            )
        return lifted

    async def llm_map(self, call: CallId, tasks: Any) -> str:
        """Ask every task's prompt and keep the replies."""
        return await llm_map(
            self._required_store(),
            tasks,
            self._store_asker(call, "m"),
            away=self._tree.threads.query,
        )

    async def llm_reduce(self, call: CallId, ids_or_query: Any, prompt: Any) -> str:
        """Fold objects into one."""
        window = (self._tree.settings.sub.context_window or _UNKNOWN_WINDOW) * _CHARACTERS_PER_TOKEN
        ask, away = self._store_asker(call, "f"), self._tree.threads.query
        return await llm_reduce(
            self._required_store(), ids_or_query, prompt, ask, window=window, away=away
        )

    def _store_asker(
        self, call: CallId, letter: str
    ) -> Callable[[Sequence[str]], AsyncGenerator[tuple[int, str], None]]:
        rounds = 0

        async def ask(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
            nonlocal rounds
            rounds += 1
            begun, coming = time.monotonic(), asyncio.Queue[tuple[int, str] | None]()
            begin = f"{call.path(letter)}.{rounds}"
            sub, width = self._tree.settings.sub, self._tree.settings.max_parallel_calls
            asking = asyncio.ensure_future(
                self.ask_all(
                    call.function,
                    lambda number: f"{begin}.{number}",
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
                self.note_batch(len(prompts), sub, begun)
            finally:
                asking.cancel()
                await wait_until_done(asking)

        return ask


def _numbered(call: CallId, letter: str) -> Callable[[int], str]:
    begin = call.path(letter)
    return lambda number: f"{begin}.{number}"


def _tool_answer(tool: Tool) -> Callable[..., Awaitable[Any]]:
    async def answer(_call: CallId, /, *args: Any, **kwargs: Any) -> Any:
        return await tool(*args, **kwargs)

    return answer


_IN_CONTEXT = "Do what the context asks for; it is one message, with all that is needed in it."
_NO_DOCUMENT = "You see this message alone and no document: say nothing that is not in it."
_COMMIT = (
    '{"creates": [{"id": "e1", "type": "evidence", "description": "…", "content": "…", "backrefs": [], "tags": []}], '
    '"links": [], "proposes_updates": []}.'
)


def _commit_id(path: str) -> str:
    return path.replace("/", "_")


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, LLMError)
