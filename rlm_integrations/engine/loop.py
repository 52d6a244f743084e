"""One run, from its question to its answer: ask the root model, run its code, show it what that printed, until it finishes."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_integrations import _runtime
from rlm_integrations._cleanup import ended, to_the_end
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine import prompts
from rlm_integrations.engine.answer import InvalidAnswerError, Typed
from rlm_integrations.engine.budget import BudgetSpentError, estimate
from rlm_integrations.engine.citations import verified
from rlm_integrations.engine.gate import Gate
from rlm_integrations.engine.host import Host, Notebook, Spawn
from rlm_integrations.engine.parsing import Note, Reply, parse
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ModelError
from rlm_integrations.events import BlockFinished, BlockStarted, TurnFinished, TurnStarted, new_id
from rlm_integrations.records import CallRecord, Message, Request
from rlm_integrations.result import Citation, Execution, Iteration, StopReason
from rlm_integrations.sandbox.base import ExecutionResult, Final, Session

REPEATS = 5  # the same reply so often ends a run
LOSSES = 2  # lost sandboxes that are replaced
_PARSED_OFF_LOOP = 10_000  # characters of a reply


@dataclass(slots=True)
class Outcome:
    """How far a run has come, and in the end what became of it."""

    answer: Any = ""  # None where one of a type was asked for
    partial: str = ""  # the best words so far, unless `stop_reason` is "final"
    citations: list[Citation] = field(default_factory=list)
    dropped_citations: int = 0
    stop_reason: StopReason = "max_iterations"
    turns: list[Iteration] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    error: str | None = None


class Repl:
    """The sandbox session of a run, opened while the model thinks, replaced where it is lost, and kept by a chat for its next question."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.blocks = 0
        self.gate: Gate | None = None
        self._opening: asyncio.Task[Session] | None = None

    @property
    def session(self) -> Session | None:
        """The session, if there is one."""
        opening = self._opening
        return opening.result() if opening is not None and opening.done() and not opening.cancelled() and not opening.exception() else None

    def begin(self, tree: Tree) -> "asyncio.Task[Session]":
        """Begin to open the session, if there is none."""
        if self._opening is None:
            settings = tree.settings
            specs = self.gate.specs if self.gate is not None else []
            self._opening = asyncio.ensure_future(settings.sandbox.open(self.corpus, specs, self._answer, settings.limits))
        return self._opening

    async def opened(self, tree: Tree) -> Session:
        """The session, once it is open."""
        try:
            return await self.begin(tree)
        except BaseException:
            await self.close()  # the next try begins anew
            raise

    async def _answer(self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if self.gate is None:
            raise RuntimeError("a REPL without a gate")
        return await self.gate(block, function, args, kwargs)

    async def close(self) -> None:
        """End the session, also one that is still being opened."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()
        try:
            await ended(opening)
        finally:
            if not opening.cancelled() and opening.exception() is None:
                await to_the_end(opening.result().close())

    async def end(self, *, keep: object) -> None:
        """Close it and its document, unless that is the one to keep."""
        try:
            await self.close()
        finally:
            if self.corpus is not keep:
                await to_the_end(_runtime.offload(self.corpus.close))  # a gigabyte takes a while to give back


class Run:
    """One run of the loop over one document.

    Args:
        tree: What it shares with the other runs of its tree.
        repl: Its REPL.
        query: The question.
        path: Its place in the tree, "r" for the root.
        depth: 0 for the root.
        typed: What kind of answer is wanted.
        spawn: Has a child run answer a question.
        worker: Its name in the store.

    Attributes:
        id: Its id in the events.
        outcome: How far it has come.
    """

    def __init__(self, tree: Tree, repl: Repl, *, query: str, path: str, depth: int, typed: Typed, spawn: Spawn, worker: str) -> None:
        self.id = new_id("run")
        self.outcome = Outcome(answer="" if typed.schema is None else None)
        self._tree = tree
        self._repl = repl
        self.query = query
        self._path = path
        self._depth = depth
        self.typed = typed
        self._host = Host(tree, repl.corpus, query=query, depth=depth, spawn=spawn, worker=worker, parent=self.id)
        repl.gate = Gate(path, self._host.functions())
        self._messages = self.outcome.messages
        self._final: Final | None = None  # the last one, whether it was taken or not
        self._losses: list[str] = []  # how sandboxes were lost so far

    async def run(self, history: Sequence[Message] = ()) -> Outcome:
        """Take turns until an answer, or a limit; the outcome, whichever it was.

        Args:
            history: The conversation of earlier questions.

        Raises:
            ModelError: The root model failed at its very first call: there is nothing to give.
        """
        outcome, settings = self.outcome, self._tree.settings
        self._messages[:] = history or [Message("system", self._system())]
        self._say(self._question())
        await self._begin()
        try:
            for _ in range(settings.max_iterations):
                if await self._turn():
                    break
            else:
                await self._close("the limit of turns is reached")
        except BudgetSpentError as spent:
            outcome.stop_reason = spent.reason
            # What is kept back is the root's: the best answer of a child is what it has.
            if spent.reason in {"budget_calls", "budget_tokens"} and not self._depth:
                await self._close("the budget is spent")
        if outcome.stop_reason != "final":
            outcome.partial = outcome.partial or self._partial()
            if self.typed.schema is None:
                outcome.answer = outcome.partial
        return outcome

    async def _begin(self) -> None:
        """Open the sandbox while the root model thinks; the first of a process before that: where there is none, nothing is paid."""
        opened = _runtime.shared("sandboxes that opened", set[str])
        name = self._tree.settings.sandbox.name
        if name in opened:
            self._repl.begin(self._tree)
        else:
            await self._repl.opened(self._tree)
            opened.add(name)

    async def _turn(self, *, closing: bool = False) -> bool:
        """One turn: ask, run, show. Whether the run is over."""
        outcome, emit = self.outcome, self._tree.emit
        number = len(outcome.turns) + 1
        emit(TurnStarted(id=self.id, iteration=number))
        record = await self._ask(number, closing=closing)
        if record.error is not None:
            if not outcome.turns:
                raise ModelError(record.error.message, type=record.error.type)
            outcome.stop_reason, outcome.error = "model_error", str(record.error)
            return True
        reply = await _runtime.offload(parse, record.reply) if len(record.reply) > _PARSED_OFF_LOOP else parse(record.reply)
        self._messages.append(Message("assistant", record.reply[: reply.cut].rstrip() or "(nothing)"))
        executions, results = await self._run_blocks(reply)
        note = await self._finish(reply, results, executions)
        turn = Iteration(
            iteration=number,
            reply=record.reply,
            executions=tuple(executions),
            note=note or "",
            start=self._tree.since(record.start),
            end=self._tree.since(time.monotonic()),
            usage=record.usage,
        )
        outcome.turns.append(turn)
        emit(TurnFinished(id=self.id, turn=turn))
        if note is None:
            outcome.stop_reason = "final"
            return True
        return self._is_stuck() or self._observe(reply, results, note)

    async def _ask(self, number: int, *, closing: bool) -> CallRecord:
        self._compact()
        settings, purse = self._tree.settings, self._tree.purse
        if purse.limits_replies and not self._depth:
            # The closing request will hold this reply and what its code prints.
            purse.keep_back(estimate(self._messages) + settings.limits.reply_tokens + settings.limits.stdout_shown // 3 + 1_000)
        request = Request(tuple(self._messages), role="root", query=self.query, path=f"{self._path}.{number}", depth=self._depth)
        record = await self._tree.ask(settings.root, request, parent=self.id, closing=closing and not self._depth)
        if record.error is not None and record.error.type == "budget":
            raise BudgetSpentError(purse.spent_out or "budget_calls")
        return record

    async def _run_blocks(self, reply: Reply) -> tuple[list[Execution], list[ExecutionResult]]:
        """Run what may be run, in order, until one fails."""
        executions: list[Execution] = []
        results: list[ExecutionResult] = []
        for block in reply.blocks:
            if block.note is not None:
                continue
            execution, result = await self._execute(block.code)
            executions.append(execution)
            results.append(result)
            if result.status != "ok":
                break
        return executions, results

    async def _execute(self, code: str) -> tuple[Execution, ExecutionResult]:
        session = await self._repl.opened(self._tree)
        self._repl.blocks += 1
        number, notebook = self._repl.blocks, Notebook()
        self._host.notebook = notebook
        self._tree.emit(BlockStarted(id=self.id, block=number, code=code))
        try:
            with self._deadline(session):
                result = await session.execute(code, number)
        except BaseException:
            await self._repl.close()  # it is over; a chat's next question gets another
            raise
        finally:
            await notebook.complete()
        if result.status == "lost":
            self._losses.append(result.error.message if result.error is not None else "")
            await self._repl.close()  # the next block gets a new one
        execution = Execution(
            block=number,
            code=code,
            status=result.status,
            stdout=result.stdout,
            stderr=result.stderr,
            output=result.output,
            dropped=result.dropped,
            error=None if result.error is None else result.error.traceback or f"{result.error.type}: {result.error.message}",
            elapsed=result.elapsed,
            store_events=tuple(notebook.store_events),
            batch_calls=tuple(notebook.batches),
            subcalls=tuple(notebook.subcalls),
        )
        self._tree.emit(BlockFinished(id=self.id, execution=execution))
        return execution, result

    async def _finish(self, reply: Reply, results: list[ExecutionResult], executions: list[Execution]) -> str | None:
        """None where the reply finished the run; else what the model is told about its final, or "" where there was none."""
        final = next((result.final for result in reversed(results) if result.final is not None), None)
        if any(result.status != "ok" for result in results):
            self._final = final or self._final
            return prompts.note(Note("final_refused")) if final or reply.final else ""
        if final is None and reply.final is not None:
            execution, result = await self._execute(reply.final.code)
            executions.append(execution)
            final = result.final
            if result.status in {"interrupted", "lost"}:
                return prompts.note(Note("final_refused"))
            if final is None and reply.final.kind == "variable":
                return prompts.unknown_variable(reply.final.text, result.locals)
            final = final or Final(reply.final.text)
        if final is None:
            return ""
        self._final = final
        try:
            answer = await _runtime.offload(self.typed.read, final.value)
        except InvalidAnswerError as error:
            return prompts.invalid(str(error))
        outcome = self.outcome
        outcome.answer = answer
        found = await _runtime.offload(verified, final.evidence, self._repl.corpus, self._tree.corpus, self._host.ambiguous)
        outcome.citations, outcome.dropped_citations = found
        return None

    def _observe(self, reply: Reply, results: list[ExecutionResult], note: str) -> bool:
        """Tell the model what its turn did. Whether a limit ends the run here."""
        written = sum(block.note is None for block in reply.blocks)
        parts = [prompts.observation(results, written=written, shown=self._tree.settings.limits.stdout_shown)] if results else []
        parts += [prompts.note(each) for each in reply.notes]
        parts += [note] if note and note not in parts else []
        if len(self.outcome.turns) > 1 and self.outcome.turns[-1].reply == self.outcome.turns[-2].reply:
            parts.append(prompts.REPEATED)
        self._say("\n\n".join(parts) or prompts.NOTHING_TO_DO)
        if len(self._losses) > LOSSES:
            self.outcome.stop_reason, self.outcome.error = "sandbox_lost", self._losses[-1]
            return True
        if self._tree.purse.spent_out is not None:
            raise BudgetSpentError(self._tree.purse.spent_out)
        return False

    def _say(self, text: str) -> None:
        """Add to the conversation as user; two messages in a row become one, because many providers want turns."""
        if self._messages and self._messages[-1].role == "user":
            text = f"{self._messages.pop().content}\n\n{text}"
        self._messages.append(Message("user", text))

    def _is_stuck(self) -> bool:
        turns = self.outcome.turns
        if len(turns) >= REPEATS and all(turn.reply == turns[-1].reply for turn in turns[-REPEATS:]):
            self.outcome.stop_reason = "repeated_reply"
            return True
        return False

    async def _close(self, reason: str) -> None:
        """Ask once for the best answer that what was found allows; its code runs, and asks nobody any more."""
        outcome, taken = self.outcome, len(self.outcome.turns)
        stop_reason = outcome.stop_reason
        self._say(prompts.closing(reason))
        self._host.closed = "this is the last turn, and no model can be asked any more"
        try:
            await self._turn(closing=True)
        except BudgetSpentError:
            pass
        except ModelError as error:
            outcome.error = str(error)
        for turn in outcome.turns[taken:]:
            if outcome.stop_reason != "final" and not turn.executions:
                outcome.partial = turn.reply.strip()  # the best answer, without FINAL around it
        outcome.stop_reason = stop_reason

    def _partial(self) -> str:
        """The best words of a run that did not finish: the last value of a FINAL, or what was printed or said last."""
        if self._final is not None:
            return self.typed.text(self._final.value)
        for turn in reversed(self.outcome.turns):
            for execution in reversed(turn.executions):
                if execution.stdout.strip():
                    return execution.stdout.strip()
            if not turn.executions and turn.reply.strip():
                return turn.reply.strip()
        return ""

    @contextlib.contextmanager
    def _deadline(self, session: Session) -> Iterator[None]:
        """Interrupt the block that runs meanwhile, once the run's time is over."""
        left = self._tree.purse.seconds_left()
        if left is None:
            yield
            return
        interrupts: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

        def over() -> None:
            self._tree.purse.spent_out = self._tree.purse.spent_out or "budget_seconds"
            interrupts.add(asyncio.ensure_future(session.interrupt()))

        timer = asyncio.get_running_loop().call_later(max(0.0, left), over)
        try:
            yield
        finally:
            timer.cancel()

    # What the model reads.

    def _system(self) -> str:
        settings = self._tree.settings
        return prompts.system(
            shown=settings.limits.stdout_shown,
            sub_window=settings.sub.context_window,
            children=self._depth + 1 < settings.max_depth,
            models=list(settings.subs),
            tools=[tool.spec for tool in settings.tools],
            store=self._tree.store is not None,
            schema=self.typed.schema,
        )

    def _question(self) -> str:
        corpus = self._repl.corpus
        lengths = [source.length for source in corpus.sources]
        first = corpus.sources[0] if corpus.sources else None
        opening = corpus.text(first.name, 0, min(prompts.OPENING, first.length)) if first is not None else ""
        return prompts.question(self.query, lengths=lengths, is_list=corpus.is_list, opening=opening)

    def _compact(self) -> None:
        """Shorten all but the latest outputs once the conversation nears the window; its beginning then changes once, not at each turn."""
        settings = self._tree.settings
        window = settings.root.context_window or settings.limits.window
        if estimate(self._messages) <= window * settings.limits.compact_at:
            return
        users = [at for at, message in enumerate(self._messages) if message.role == "user"]
        for at in users[1:-2]:
            text = self._messages[at].content
            shortened = prompts.compacted(len(text))
            if len(text) > 2 * len(shortened):
                self._messages[at] = Message("user", shortened)
