"""What REPL code may call, as the host answers it. Every argument is hostile: its type and size are checked here."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from rlm_integrations._cleanup import ended
from rlm_integrations._work import Work
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.citations import LONGEST, MOST
from rlm_integrations.engine.gate import Call, Function
from rlm_integrations.engine.tools import Tool
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, new_id
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.pool import pool
from rlm_integrations.lm.prompts import CHUNK
from rlm_integrations.quotes import locate_quote
from rlm_integrations.records import CallRecord, HostFunction, LLMError, Message, Request, SpanRef
from rlm_integrations.result import Citation, Iteration, SubCall
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.store import WorkerStoreProxy
from rlm_integrations.store.commit import apply_commit, commit_of
from rlm_integrations.store.content import length
from rlm_integrations.store.derive import llm_map, llm_reduce
from rlm_integrations.store.events import StoreEvent
from rlm_integrations.store.shared import REPL_METHODS

_CHARACTERS_PER_TOKEN = 3
_SMALL = 10_000  # characters of an object that is read on the event loop
_UNKNOWN_WINDOW = 32_000  # tokens that a sub-model is taken to read where it does not say


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for a child run.

    Attributes:
        path: The child's place in the tree.
        query: The question.
        context: The text or the texts, as code handed them over; None for the whole document of the run that asks.
        parent: The id in the events of the run that asks.
        tell: Takes what became of it, also where it was cancelled.
    """

    path: str
    query: str
    context: str | list[str] | None
    parent: str
    tell: "Callable[[Answered], None]"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a child run.

    Attributes:
        reply: Its answer, or an `LLMError`.
        turns: What it did.
        citations: The verified places of the root's document that it gave as evidence.
        dropped_citations: How many further ones it gave that are not there.
    """

    reply: str
    turns: tuple[Iteration, ...]
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0


Spawn = Callable[[Asked], Awaitable[str]]


class Notebook:
    """What the block that runs now has done so far: calls, batches, writes."""

    def __init__(self) -> None:
        self.subcalls: list[SubCall] = []
        self.batches: list[Mapping[str, Any]] = []
        self.store_events: list[Mapping[str, Any]] = []
        self.unfinished: dict[str, str] = {}  # replies by their prompts, of calls whose results the code did not get
        self._pending: set[asyncio.Task[None]] = set()

    async def note(self, noting: Coroutine[Any, Any, None]) -> None:
        """Have something noted, also where the block is ended meanwhile."""
        task = asyncio.ensure_future(noting)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        await asyncio.shield(task)

    async def complete(self) -> None:
        """Wait until all is noted."""
        await ended(*self._pending)

    def note_store(self, event: StoreEvent) -> None:
        """Keep what was written to the store; called in the thread that wrote."""
        brief = event.brief()
        self.store_events.append({name: brief.get(name) for name in ("op", "id", "type", "description", "worker", "ts")})


class Host:
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
        unchecked: How many quotes `cite` could not look up, because the document's file has changed.
    """

    def __init__(self, tree: Tree, corpus: Corpus, *, query: str, depth: int, spawn: Spawn, worker: str, parent: str) -> None:
        self._tree = tree
        self._corpus = corpus
        self._query = query
        self._depth = depth
        self._spawn = spawn
        self._parent = parent
        self._store: WorkerStoreProxy | None = None
        if tree.store is not None:
            self._store = tree.store.worker(worker, on_event=self._note_store, lift=self._lift)
        self.notebook = Notebook()
        self.ambiguous: set[SpanRef] = set()
        self.unchecked = 0
        self.closed = ""

    def _note_store(self, event: StoreEvent) -> None:
        self.notebook.note_store(event)

    def functions(self) -> list[Function]:
        """Everything that the REPL may call."""
        found = [
            Function(HostFunction("llm_query", "(prompt, model=None)", "Ask a language model; it sees the prompt alone."), self.llm_query),
            Function(
                HostFunction(
                    "llm_batch",
                    "(prompts, max_concurrent=10, model=None)",
                    "Ask many at once, in order; a failed one is an LLMError, which begins with 'Error:'.",
                    ("llm_query_batched",),
                ),
                self.llm_batch,
            ),
            Function(HostFunction("parallel_query", "(template, chunks, max_concurrent=10, model=None)"), self.parallel_query),
            Function(HostFunction("recursive_lm", "(query, context_subset)", "", ("rlm_query",)), self.recursive_lm),
            Function(HostFunction("recursive_batch", "(tasks)", "", ("rlm_query_batched",)), self.recursive_batch),
            Function(HostFunction("cite", "(quote, source=None)", "Where the document says so word for word, else None."), self.cite),
        ]
        if self._store is not None:
            found += [
                Function(HostFunction("rlm_worker", "(prompt, store_cards=None)"), self.rlm_worker),
                Function(HostFunction("rlm_worker_batched", "(tasks, max_parallel=8)"), self.rlm_worker_batched),
                Function(HostFunction("apply_commit", "(commit, batch_prefix='')"), self.apply_commit),
                Function(HostFunction("store.llm_map", "(tasks)"), self.llm_map),
                Function(HostFunction("store.llm_reduce", "(ids_or_query, prompt)"), self.llm_reduce),
                *[Function(HostFunction(f"store.{name}"), self._store_method(name)) for name in sorted(REPL_METHODS)],
            ]
        return found + [Function(tool.spec, _tool_answer(tool)) for tool in self._tree.settings.tools]

    # Models.

    async def llm_query(self, call: Call, prompt: Any, model: Any = None) -> str:
        """Ask a model once."""
        lm = self._model(model)
        if not isinstance(prompt, str):
            raise HostCallError(f"llm_query: the prompt must be a text, not {_kind(prompt)}", type="TypeError")
        return (await self._ask_all("llm_query", [call.path("q")], [prompt], lm, 1))[0]

    async def llm_batch(self, call: Call, prompts: Any, max_concurrent: Any = 10, model: Any = None) -> list[str]:
        """Ask a model many prompts at once."""
        lm, width = self._model(model), self._width(max_concurrent)
        if not isinstance(prompts, list):
            raise HostCallError(f"llm_batch: the prompts must be a list of texts, not {_kind(prompts)}", type="TypeError")
        begun = time.monotonic()
        paths = [f"{call.path('b')}.{number}" for number in range(len(prompts))]
        replies = await self._ask_all("llm_batch", paths, prompts, lm, width)
        self._note_batch(len(prompts), lm, begun)
        return replies

    async def parallel_query(self, call: Call, template: Any, chunks: Any, max_concurrent: Any = 10, model: Any = None) -> list[str]:
        """Ask the same about many chunks at once; only the literal {chunk} is replaced."""
        if not isinstance(template, str) or CHUNK not in template:
            raise HostCallError(f"parallel_query: the template must be a text that holds {CHUNK}, not {_kind(template)}", type="ValueError")
        if not isinstance(chunks, list):
            raise HostCallError(f"parallel_query: the chunks must be a list of texts, not {_kind(chunks)}", type="TypeError")
        lm, width = self._model(model), self._width(max_concurrent)
        begun = time.monotonic()
        prompts = [template.replace(CHUNK, chunk) if _is_text(chunk) else chunk for chunk in chunks]
        paths = [f"{call.path('p')}.{number}" for number in range(len(prompts))]
        replies = await self._ask_all("parallel_query", paths, prompts, lm, width)
        self._note_batch(len(prompts), lm, begun)
        return replies

    async def _ask_all(
        self,
        function: str,
        paths: Sequence[str],
        prompts: Sequence[Any],
        lm: LM,
        width: int,
        tell: Callable[[int, str], None] = lambda _number, _reply: None,
    ) -> list[str]:
        replies: list[str] = [""] * len(prompts)
        records: dict[int, CallRecord] = {}
        notebook = self.notebook

        async def one(number: int, prompt: Any) -> None:
            refused = _refusal(prompt)
            if refused is not None:
                replies[number] = refused
            else:
                begun = time.monotonic()
                records[number] = _cancelled(lm, begun)  # unless it comes to an end by itself
                records[number] = await self._ask(lm, prompt, paths[number], parent)
                replies[number] = records[number].reply
            tell(number, replies[number])
            progress(replies[number])

        width = min(width, max(1, len(prompts)))
        try:
            with self._batch_events(len(prompts), width) as (parent, progress):
                await pool(prompts, one, width)
        except asyncio.CancelledError:
            answered = {prompts[number]: record.reply for number, record in records.items() if record.error is None}
            notebook.unfinished.update(answered)
            raise
        finally:
            if records:
                asked = sorted(records)
                made = [(paths[number], prompts[number], records[number]) for number in asked]
                await notebook.note(self._note_calls(notebook, function, made))
        return replies

    async def _note_calls(self, notebook: Notebook, function: str, made: Sequence[tuple[str, str, CallRecord]]) -> None:
        located = await self._tree.pieces([prompt for _, prompt, _ in made])
        for (path, _, record), pieces in zip(made, located, strict=True):
            notebook.subcalls.append(
                SubCall(
                    path=path,
                    function=function,
                    model=record.model,
                    prompt=pieces,
                    reply=record.reply,
                    depth=self._depth + 1,
                    start=self._tree.since(record.start),
                    end=self._tree.since(record.end),
                    wait=record.wait,
                    retries=record.retries,
                    usage=record.usage,
                )
            )

    @contextmanager
    def _batch_events(self, total: int, width: int) -> Iterator[tuple[str, Callable[[str], None]]]:
        """The events of a batch: the parent of its calls, and what is to be told of each reply. A single call has the run as its parent."""
        emit, id_, done, failed = self._tree.emit, new_id("batch"), 0, 0
        outcome: Literal["completed", "cancelled"] = "cancelled"
        if total == 1:
            yield self._parent, lambda _reply: None
            return

        def progress(reply: str) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + isinstance(reply, LLMError)
            emit(BatchProgress(id=id_, parent=self._parent, done=done, total=total, failed=failed))

        emit(BatchStarted(id=id_, parent=self._parent, total=total, max_concurrent=width))
        try:
            yield id_, progress
            outcome = "completed"
        finally:
            emit(BatchFinished(id=id_, parent=self._parent, done=done, total=total, failed=failed, outcome=outcome))
            self._tree.forget(id_)

    async def _ask(self, lm: LM, prompt: str, path: str, parent: str) -> CallRecord:
        request = Request((Message("user", prompt),), role="sub", query=self._query, path=path, depth=self._depth + 1)
        if self.closed:
            return self._tree.refuse(lm, request, self.closed, parent=parent)
        return await self._tree.ask(lm, request, parent=parent)

    def _note_batch(self, count: int, lm: LM, begun: float) -> None:
        spent = time.monotonic() - begun
        self.notebook.batches.append({"prompts_count": count, "model": lm.name, "execution_time": spent, "ts": time.time()})

    def _model(self, name: Any) -> LM:
        """A registered model: never an address, which could be anybody's."""
        subs = self._tree.settings.subs
        if name is None:
            return self._tree.settings.sub
        if isinstance(name, str) and name in subs:
            return subs[name]
        shown = repr(name[:60]) if isinstance(name, str) else _kind(name)
        raise HostCallError(f"model={shown} is not registered; there are: {', '.join(map(repr, subs))}", type="ValueError")

    def _width(self, width: Any, name: str = "max_concurrent") -> int:
        if type(width) is not int or width < 1:
            raise HostCallError(f"{name} must be an integer of at least 1", type="ValueError")
        return min(width, self._tree.settings.max_parallel_calls)

    # Children.

    async def recursive_lm(self, call: Call, query: Any, context_subset: Any) -> str:
        """Have a question over a part of the document answered: by a child run, or at the limit of depth by the sub-model."""
        return await self._child("recursive_lm", call.path("c"), query, context_subset)

    async def recursive_batch(self, call: Call, tasks: Any) -> list[str]:
        """Have several answered at once; a task that is none fails alone."""
        if not isinstance(tasks, list):
            raise HostCallError('recursive_batch: a list of {"query": …, "context": …} is needed', type="TypeError")
        replies: list[str] = [""] * len(tasks)

        async def one(number: int, task: Any) -> None:
            given = task if isinstance(task, dict) else {}
            path = f"{call.path('c')}.{number}"
            try:
                replies[number] = await self._child("recursive_batch", path, given.get("query"), given.get("context"))
            except HostCallError as error:
                replies[number] = LLMError("input", str(error))

        await pool(tasks, one, max(1, min(len(tasks), self._tree.settings.max_parallel_calls)))
        return replies

    async def _child(self, function: str, path: str, query: Any, context: Any) -> str:
        if not isinstance(query, str) or not query.strip():
            raise HostCallError(f"{function}: the query must be a text that is not empty", type="ValueError")
        if not isinstance(context, str) and not (isinstance(context, list) and all(isinstance(each, str) for each in context)):
            raise HostCallError(f"{function}: the context must be a text or a list of texts, not {_kind(context)}", type="TypeError")
        return await self._answered(function, path, query, context)

    async def _answered(self, function: str, path: str, query: str, context: str | list[str] | None) -> str:
        """The answer of a child run, or of the sub-model where the depth allows no child, or nobody can be asked any more."""
        if self.closed or self._depth + 1 >= self._tree.settings.max_depth:
            texts = [context] if isinstance(context, str) else context or []
            prompt = "\n\n".join([f"Question: {query}", *texts])
            return (await self._ask_all(function, [path], [prompt], self._tree.settings.sub, 1))[0]
        notebook, begun, children = self.notebook, time.monotonic(), list[Answered]()
        try:
            return await self._spawn(Asked(path, query, context, self._parent, children.append))
        finally:
            for child in children:
                await notebook.note(self._note_child(notebook, function, path, query, child, begun))

    async def _note_child(self, notebook: Notebook, function: str, path: str, query: str, child: Answered, begun: float) -> None:
        notebook.subcalls.append(
            SubCall(
                path=path,
                function=function,
                model="",
                prompt=(await self._tree.pieces([query]))[0],
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

    async def rlm_worker(self, call: Call, prompt: Any, store_cards: Any = None) -> dict[str, Any]:
        """Have a child explore the whole document; its answer is a commit."""
        return await self._work(prompt, store_cards, call.path("w"))

    async def rlm_worker_batched(self, call: Call, tasks: Any, max_parallel: Any = 8) -> list[dict[str, Any]]:
        """Several workers at once; a task is a prompt, or {"prompt", "store_cards"}."""
        if not isinstance(tasks, list):
            raise HostCallError("rlm_worker_batched: a list of prompts is needed", type="TypeError")
        commits: list[dict[str, Any]] = [{} for _ in tasks]

        async def one(number: int, task: Any) -> None:
            prompt, cards = (task.get("prompt"), task.get("store_cards")) if isinstance(task, dict) else (task, None)
            path = f"{call.path('w')}.{number}"
            try:
                commits[number] = await self._work(prompt, cards, path)
            except HostCallError as error:
                commits[number] = {**commit_of({"creates": []}, _commit_id(path)), "error": str(error)}

        await pool(tasks, one, max(1, min(len(tasks), self._width(max_parallel, "max_parallel"))))
        return commits

    async def _work(self, prompt: Any, cards: Any, path: str) -> dict[str, Any]:
        if not isinstance(prompt, str) or not prompt.strip():
            raise HostCallError("rlm_worker: the prompt must be a text that is not empty", type="ValueError")
        known = f"\n\nKnown so far:\n{cards}" if cards else ""
        reply = await self._answered("rlm_worker", path, f"{prompt}{known}\n\n{_COMMIT}", None)
        if isinstance(reply, LLMError):
            return {**commit_of({"creates": []}, _commit_id(path)), "error": str(reply)}
        return commit_of(reply, _commit_id(path))

    async def apply_commit(self, _call: Call, commit: Any, batch_prefix: Any = "") -> dict[str, Any]:
        """Merge a worker's commit into the store."""
        return await self._tree.threads.query(apply_commit, self._required_store(), commit, batch_prefix)

    # The document and the store.

    async def cite(self, _call: Call, quote: Any, source: Any = None) -> SpanRef | None:
        """Where the run's document holds these words."""
        if not isinstance(quote, str) or not isinstance(source, str | None):
            raise HostCallError(f"cite: quote and source must be texts, not {_kind(quote)} and {_kind(source)}", type="TypeError")
        if len(quote) > LONGEST:
            raise HostCallError(f"cite: a quote has at most {LONGEST:,} characters, not {len(quote):,}", type="ValueError")
        try:
            hits = await self._tree.threads.run(Work(), locate_quote, self._corpus, quote, source)
        except ContextError:  # its file has changed; what the block has paid for must not be lost for that
            self.unchecked += 1
            return None
        if len(hits) > 1 and len(self.ambiguous) < MOST:
            self.ambiguous.add(hits[0].span)
        return hits[0].span if hits else None

    def _required_store(self) -> WorkerStoreProxy:
        if self._store is None:
            raise HostCallError("this run has no store")
        return self._store

    def _store_method(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._required_store(), name)

        async def answer(_call: Call, /, *args: Any, **kwargs: Any) -> Any:
            try:
                if name == "get" and self._is_small(*args[:1], *kwargs.values()):
                    return method(*args, **kwargs)
                return await self._tree.threads.query(method, *args, **kwargs)
            except TypeError as error:  # the arguments do not fit
                raise HostCallError(f"store.{name}: {error}", type="TypeError") from None

        return answer

    def _is_small(self, id_: Any = None, *_: Any) -> bool:
        """Whether to read an object takes microseconds, which a thread would cost many times over."""
        view = self._required_store().ledger.view
        row = view.row_of.get(id_) if isinstance(id_, str) else None
        return row is None or length(view.rows[row].content) <= _SMALL

    def _lift(self, span: SpanRef) -> SpanRef:
        """A span of this run's document as one of the root's."""
        lifted = self._corpus.lift(span)
        if lifted is None:
            raise InputError(f"{span} holds words that are not the document's: only the document can be referred to")
        return lifted

    async def llm_map(self, call: Call, tasks: Any) -> str:
        """Ask every task's prompt and keep the replies."""
        return await llm_map(self._required_store(), tasks, self._store_asker(call, "m"))

    async def llm_reduce(self, call: Call, ids_or_query: Any, prompt: Any) -> str:
        """Fold objects into one."""
        window = (self._tree.settings.sub.context_window or _UNKNOWN_WINDOW) * _CHARACTERS_PER_TOKEN
        return await llm_reduce(self._required_store(), ids_or_query, prompt, self._store_asker(call, "f"), window=window)

    def _store_asker(self, call: Call, letter: str) -> Callable[[Sequence[str]], AsyncGenerator[tuple[int, str], None]]:
        rounds = 0

        async def ask(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
            nonlocal rounds
            rounds += 1
            begun, coming = time.monotonic(), asyncio.Queue[tuple[int, str] | None]()
            paths = [f"{call.path(letter)}.{rounds}.{number}" for number in range(len(prompts))]
            sub, width = self._tree.settings.sub, self._tree.settings.max_parallel_calls
            asking = asyncio.ensure_future(
                self._ask_all(call.function, paths, prompts, sub, width, lambda number, reply: coming.put_nowait((number, reply)))
            )
            asking.add_done_callback(lambda _: coming.put_nowait(None))
            try:
                while (arrived := await coming.get()) is not None:
                    yield arrived
                await asking
                self._note_batch(len(prompts), sub, begun)
            finally:
                asking.cancel()
                await ended(asking)

        return ask


def _tool_answer(tool: Tool) -> Callable[..., Awaitable[Any]]:
    async def answer(_call: Call, /, *args: Any, **kwargs: Any) -> Any:
        return await tool(*args, **kwargs)

    return answer


_COMMIT = (
    "Finish with FINAL of a dict: "
    '{"creates": [{"id": "e1", "type": "evidence", "description": "…", "content": "…", "backrefs": [], "tags": []}], '
    '"links": [], "proposes_updates": []}.'
)


def _commit_id(path: str) -> str:
    return path.replace("/", "_")


def _cancelled(lm: LM, begun: float) -> CallRecord:
    return CallRecord(reply=LLMError("cancelled", "the block ended first"), model=lm.name, start=begun, end=begun)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, LLMError)


def _refusal(prompt: Any) -> LLMError | None:
    """Why a prompt is not sent, in its slot."""
    if isinstance(prompt, LLMError):
        return prompt
    if not isinstance(prompt, str):
        return LLMError("input", f"a prompt must be a text, not {_kind(prompt)}")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        return LLMError("input", f"the prompt holds half of a surrogate pair at {error.start}, which cannot be sent")
    return None


def _kind(value: Any) -> str:
    return getattr(value, "type", type(value).__name__) if not isinstance(value, str) else "a text"
