"""A REPL over a document whose code comes from outside: from an agent's own model, or from a
person.
"""

import asyncio
import secrets
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.portal import portal
from rlm_integrations.engine import prompts
from rlm_integrations.engine.answer import AnswerType, InvalidAnswerError
from rlm_integrations.engine.answering import check_prices, corpus_of
from rlm_integrations.engine.blocks import Blocks
from rlm_integrations.engine.children import spawner
from rlm_integrations.engine.front_types import Context
from rlm_integrations.engine.host.host import Host
from rlm_integrations.engine.outcome import Outcome
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.engine.settings import Settings
from rlm_integrations.engine.tree import RunStart, Tree
from rlm_integrations.errors import InputError
from rlm_integrations.events import Emitter, new_id
from rlm_integrations.trajectory import Citation, DroppedEvidence, Execution

_MAX_CODE_CHARS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeResult:
    """What a block of code did.

    Attributes:
        execution: The block, with its output, its model calls and its other calls.
        shown: What a model should see of it: its output or error, shortened, and notes.
        is_final: Whether it gave a valid answer by `FINAL`.
        answer: The answer, of the type that was asked for; None if there is none.
        citations: The verified evidence of the answer.
        dropped: Evidence that could not be verified, with the reason.
        has_new_variables: Whether it ran in a new REPL, because the one before was lost.
    """

    execution: Execution
    shown: str
    is_final: bool = False
    answer: Any = None
    citations: tuple[Citation, ...] = ()
    dropped: tuple[DroppedEvidence, ...] = ()
    has_new_variables: bool = False


@dataclass(frozen=True, slots=True)
class _Work:
    """What the blocks share until `renew`."""

    tree: Tree
    host: Host
    blocks: Blocks


class CodeSession:
    """A sealed REPL over a document, for code that you bring: no root model is called. Code has all
    functions of the REPL and the tools of the RLM. Close it, or use it in a `with` statement.

    Variables are kept until it is closed, also after a block that failed or was cancelled. Budget,
    store and record are those of one piece of work: `renew` begins the next one.

    A session is tied to the event loop of its first block: use only `execute`, or only `aexecute` on
    one loop.

    Args:
        rlm: Its options: the model that code calls, the budget, limits, tools, sandbox and
            `output_type`. Its root model, its storage and its store are not used.
        context: The document, as for `RLM.completion`.

    Raises:
        InputError: An option is invalid.
    """

    def __init__(self, rlm: RLM[Any], context: Context) -> None:
        self._settings = replace(Settings.of(rlm.options), storage=None, store=None, cache=None)
        self._typed = AnswerType(
            rlm.options["output_type"], most=self._settings.limits.answer_chars
        )
        self._emit = Emitter(rlm.options["on_event"])
        self._context = context
        self._repl: LazySession | None = None
        self._work: _Work | None = None
        self._turn = asyncio.Lock()
        self._running: asyncio.Task[CodeResult] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def aexecute(self, code: str) -> CodeResult:
        """Run a block of code, after those that were started before. Cancelling it interrupts it.

        An exception of the code is no error here: it is in the result.

        Raises:
            InputError: The code is not a string or too long, or the session is closed.
            ContextError: The document cannot be read.
            SandboxError: No sandbox could be opened.
        """
        given: object = code  # of a model
        is_code = isinstance(given, str) and bool(given.strip())
        if not is_code or len(code) > _MAX_CODE_CHARS:
            raise InputError(f"code must be a string of 1 to {_MAX_CODE_CHARS:,} characters")
        self._check()
        async with self._turn:
            self._check()
            self._loop = asyncio.get_running_loop()
            self._running = asyncio.ensure_future(self._execute(code))
            try:
                return await self._running
            except asyncio.CancelledError:
                self._check()  # `aclose` cancels it, too
                raise
            finally:
                self._running = None

    def execute(self, code: str) -> CodeResult:
        """Run a block of code, for scripts, threads and notebooks; see `aexecute`."""
        return portal().run(self.aexecute(code))

    async def arenew(self) -> None:
        """Begin the next piece of work: a fresh budget and an empty store; variables stay."""
        self._check()
        async with self._turn:
            self._check()
            await self._end_work()

    def renew(self) -> None:
        """See `arenew`."""
        portal().run(self.arenew())

    async def aclose(self) -> None:
        """End the REPL and release the document. A block that is running is cancelled."""
        self._check_loop()
        self._closed = True
        if self._repl is not None:
            self._repl.is_kept = False
        if self._running is not None:
            self._running.cancel()
        async with self._turn:
            repl, self._repl = self._repl, None
            try:
                await self._end_work()
            finally:
                if repl is not None:
                    await repl.end(keep=self._context)

    def close(self) -> None:
        """End the REPL and release the document; see `aclose`."""
        portal().run(self.aclose())

    async def _execute(self, code: str) -> CodeResult:
        repl, work = await self._opened()
        blocks = work.blocks
        work.host.asking.is_withdrawn = False  # True after a block that was cancelled
        has_new_variables = repl.is_renewed
        blocks.begin_turn(is_first=repl.blocks == 0)
        result = await blocks.run(code)
        limits = self._settings.limits
        notes = [prompts.NEW_REPL] if has_new_variables else []
        outcome, is_final = Outcome(answer=None), False
        if result.final is not None:
            final = self._typed.joined(result.final)
            try:
                outcome.answer = await runtime.offload(self._typed.read, final.value)
                is_final = True
            except InvalidAnswerError as error:
                notes.append(prompts.invalid(str(error)))
            else:
                verified = await work.tree.verify_evidence(
                    final.evidence, repl.corpus, blocks.quotes.ambiguous
                )
                outcome.cite(verified, unchecked=blocks.quotes.unchecked)
        shown = prompts.observation([result], written=1, shown=limits.stdout_shown)
        return CodeResult(
            execution=blocks.executions[-1],
            shown="\n\n".join([shown, *blocks.notes, *notes]),
            is_final=is_final,
            answer=outcome.answer,
            citations=tuple(outcome.citations),
            dropped=tuple(outcome.dropped),
            has_new_variables=has_new_variables,
        )

    async def _opened(self) -> "tuple[LazySession, _Work]":
        """The REPL, and the current piece of work."""
        if self._repl is None:
            await check_prices(self._settings)
            corpus = await corpus_of(self._context, self._settings.limits)
            self._repl = LazySession(corpus, is_kept=True)
        repl = self._repl
        if self._work is None:
            start = RunStart(run_id=secrets.token_hex(8))
            tree = Tree(self._settings, repl.corpus, start, self._emit)
            tree.purse.reserve_closing(0, calls=0)  # there is no root that gives the best answer
            id_ = new_id("run")
            host = Host(
                tree,
                repl.corpus,
                query="",
                depth=0,
                spawn=spawner(tree, 0, repl.corpus),
                worker="root",
                parent=id_,
            )
            blocks = Blocks(tree, repl, host, path="r", parent=id_)
            self._work = _Work(tree, host, blocks)
        return repl, self._work

    async def _end_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            await work.tree.close()

    def _check(self) -> None:
        if self._closed:
            raise InputError("this session is closed; create another CodeSession")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise InputError(
                "this session began on another event loop: use only execute(), or only aexecute() "
                "on one loop"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
