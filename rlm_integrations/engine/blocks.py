"""The blocks of code of one run, one after the other."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace

from rlm_integrations._concurrency import runtime
from rlm_integrations.engine import prompts
from rlm_integrations.engine.block_outcome import BlockOutcome
from rlm_integrations.engine.call_id import BLOCK, CallId
from rlm_integrations.engine.gate import Gate
from rlm_integrations.engine.host.host import Host
from rlm_integrations.engine.journal import Answer, keep_answer
from rlm_integrations.engine.notebook import Notebook, Quotes
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.running import BlockUnderWay
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ContextError, ReplayDivergedError
from rlm_integrations.events import BlockFinished, BlockStarted
from rlm_integrations.sandbox.base import ExecutionError, ExecutionResult, Session
from rlm_integrations.trajectory import Execution

LOSSES = 2  # lost sandboxes that are replaced
_HASHED_OFF_LOOP = 1 << 18  # characters of a block


class Blocks:
    """Runs the blocks of one run and records them.

    A block whose outcome the journal holds runs again, to bring its variables back; its recorded
    outcome counts. If it was interrupted, it is interrupted at the first call that was not
    answered; if its sandbox was lost, it does not run. A call that is not in a complete journal
    ends the run: the code does something else than before.

    Args:
        tree: What the run shares.
        repl: Its REPL.
        host: Answers the calls of its code.
        path: The run's place in the tree.
        parent: The id of the run in the events.

    Attributes:
        executions: The blocks of the current turn.
        notes: What the model is told at the end of the turn.
        losses: How sandboxes were lost so far.
        quotes: What `cite` found out.
    """

    def __init__(
        self, tree: Tree, repl: LazySession, host: Host, *, path: str, parent: str
    ) -> None:
        self.executions: list[Execution] = []
        self.notes: list[str] = []
        self.losses: list[str] = []
        self.quotes = Quotes()
        self._tree = tree
        self._repl = repl
        self._host = host
        self._path = path
        self._parent = parent
        self._is_first_turn = True
        self._unfinished: dict[str, str] = {}  # replies by their prompts, which the next block gets
        self._gate = repl.gate = Gate(
            path, host.functions(), tree, Notebook(tree.record_room, self.quotes), parent
        )

    def begin_turn(self, *, is_first: bool) -> None:
        """Begin the lists of the next turn."""
        self.executions, self.notes = [], []
        self._is_first_turn = is_first

    async def run(self, code: str) -> ExecutionResult:
        """Run a block. It is recorded however it ends."""
        self._repl.blocks += 1
        number = self._repl.blocks
        notebook = self._gate.notebook = Notebook(self._tree.record_room, self.quotes)
        has_journal = self._tree.journal is not None
        id_ = CallId(self._path, number, BLOCK, await _digest(code) if has_journal else "")
        known = self._tree.find(id_)
        recorded = known.value if known is not None else None
        recorded = recorded if isinstance(recorded, BlockOutcome) else None
        self._tree.emit(BlockStarted(id=self._parent, block=number, code=code))
        if recorded is not None and recorded.result.status == "lost":
            await self._repl.close()
            return self._note(number, code, recorded.result, notebook, self._tree.clock.now())
        try:
            session = await self._repl.opened(self._tree)
        except ContextError as error:  # a new one is needed, and the document's file has changed
            if self._is_first_turn:
                raise
            self.losses += [str(error)] * LOSSES
            result = ExecutionResult(status="lost", error=ExecutionError("SandboxLost", str(error)))
            return self._note(number, code, result, notebook, self._tree.clock.now())
        result = await self._run(session, number, code, notebook, recorded)
        if has_journal and recorded is None:
            outcome = BlockOutcome(result, tuple(self._gate.unanswered))
            await keep_answer(self._tree.journal, id_, Answer(outcome))
        return result

    async def _run(
        self,
        session: Session,
        number: int,
        code: str,
        notebook: Notebook,
        recorded: BlockOutcome | None,
    ) -> ExecutionResult:
        begun = self._tree.clock.now()
        unfinished, self._unfinished = self._unfinished, {}
        running = BlockUnderWay(
            session,
            code,
            number,
            calls=self._host.asking,
            purse=self._tree.purse,
            unfinished=unfinished,
        )
        self._gate.unanswered.clear()
        if recorded is not None:
            self._gate.on_missing = self._missing(recorded, running)
        try:
            try:
                await running.done(
                    keeps_session=self._repl.is_kept
                    and self._tree.settings.sandbox.capabilities.interruptible
                )
            finally:
                self._gate.on_missing = None
                await notebook.complete()
        finally:
            result, is_over = running.result, running.has_ended_session
            if recorded is not None:
                _compare(number, recorded.result, result)
                result = recorded.result
            del running  # it may hold an exception, whose traceback holds this frame
            self._note(number, code, result, notebook, begun)
            if is_over:
                # The next block, or the next question of a chat, gets a new one
                await self._repl.close()
        return result

    def _missing(
        self, recorded: BlockOutcome, running: BlockUnderWay
    ) -> Callable[[CallId], None] | None:
        """What is done about a call that this block did not get an answer to."""
        if recorded.result.status == "interrupted":
            return lambda _call: running.interrupt()
        if self._tree.journal is None or not self._tree.journal.is_complete:
            return None

        def check(call: CallId) -> None:
            if replace(call, items=()) not in recorded.unanswered:
                raise ReplayDivergedError(call.path)

        return check

    def _note(
        self,
        number: int,
        code: str,
        result: ExecutionResult,
        notebook: Notebook,
        begun: float,
    ) -> ExecutionResult:
        elapsed = self._tree.clock.now() - begun
        done = notebook.execution(number, code, result, start=begun, elapsed=elapsed)
        self.executions.append(done)
        self._tree.emit(BlockFinished(id=self._parent, execution=done))
        if notebook.cut:
            self.notes.append(prompts.cut_replies(notebook.cut))
        if notebook.unfinished:
            self._unfinished |= notebook.unfinished
            self.notes.append(prompts.unfinished(len(notebook.unfinished)))
        if result.status == "lost":
            self.losses.append(result.error.message if result.error is not None else "")
        return result


async def _digest(code: str) -> str:
    """SHA-256 of a block."""
    encoded = code.encode("utf-8", "surrogatepass")
    digest = (
        await runtime.offload(hashlib.sha256, encoded)
        if len(code) > _HASHED_OFF_LOOP
        else hashlib.sha256(encoded)
    )
    return digest.hexdigest()


def _compare(number: int, recorded: ExecutionResult, now: ExecutionResult) -> None:
    """Warn if a block printed something else in its replay."""
    if (recorded.status, now.status) == ("ok", "ok") and recorded.output != now.output:
        warnings.warn(
            f"block {number} printed something else when it was replayed; "
            "its recorded output counts",
            RuntimeWarning,
            stacklevel=2,
        )
