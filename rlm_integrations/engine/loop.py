"""One run, from its question to its answer: call the root model, run its code, return the output to
it, and repeat until it finishes.
"""

import itertools
from collections.abc import Sequence

from rlm_integrations._concurrency import runtime
from rlm_integrations.engine import prompts
from rlm_integrations.engine.answer import AnswerTooLongError, AnswerType, InvalidAnswerError
from rlm_integrations.engine.blocks import LOSSES, Blocks
from rlm_integrations.engine.briefing import first_question, system_prompt
from rlm_integrations.engine.budget import BudgetSpentError
from rlm_integrations.engine.budget_reminder import BudgetReminder
from rlm_integrations.engine.call_id import CLOSE, TURN, CallId
from rlm_integrations.engine.child_requests import Spawn
from rlm_integrations.engine.conversation import Conversation
from rlm_integrations.engine.finish import answer_of, best_words, words_of
from rlm_integrations.engine.host.host import Host
from rlm_integrations.engine.outcome import Outcome
from rlm_integrations.engine.parsing import Reply
from rlm_integrations.engine.prompt_size import PromptMeter
from rlm_integrations.engine.reading import TurnReading
from rlm_integrations.engine.repetition import is_stuck, repetition_note
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ModelError
from rlm_integrations.events import TurnFinished, TurnStarted, new_id
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import CallRecord, Message, Request
from rlm_integrations.sandbox.base import ExecutionResult, FinalValue
from rlm_integrations.trajectory import Iteration, call_fields

_MAX_PARSED_CHARS = 1_000_000  # of a reply: more than any model may write


class Run:
    """One run of the loop over one document.

    Args:
        tree: The objects that all runs of the tree share.
        repl: The run's REPL.
        query: The question.
        path: The run's path in the tree, "r" for the root.
        depth: The run's depth, 0 for the root.
        typed: The type of the answer.
        spawn: Creates child runs.
        worker: The run's name in the store.

    Attributes:
        id: The run's id in the events.
        outcome: The state of the run, and at the end its result.
    """

    def __init__(
        self,
        tree: Tree,
        repl: LazySession,
        *,
        query: str,
        path: str,
        depth: int,
        typed: AnswerType,
        spawn: Spawn,
        worker: str,
    ) -> None:
        self.id = new_id("run")
        self.outcome = Outcome(answer="" if typed.schema is None else None)
        self._tree = tree
        self._repl = repl
        self.query = query
        self._path = path
        self._depth = depth
        self.typed = typed
        host = Host(
            tree, repl.corpus, query=query, depth=depth, spawn=spawn, worker=worker, parent=self.id
        )
        self._asking = host.asking
        self.reading = TurnReading(tree, host.asking.locator, depth)
        self._blocks = Blocks(tree, repl, host, path=path, parent=self.id)
        limits = tree.settings.limits
        window = tree.settings.root.context_window or limits.window
        self.conversation = Conversation(
            self.outcome.messages,
            window=window,
            compact_at=limits.compact_at,
            question_start=tree.settings.prompt.question_start,
            form=tree.settings.form,
        )
        self._final: FinalValue | None = None  # the last one, even if it was not accepted
        self._form = tree.settings.form
        self._spoken: dict[int, str] = {}  # what replies say that have no code, by turn
        self._has_reported_unreadable = False
        self.meter = PromptMeter()
        self._reminder = BudgetReminder()

    async def run(self, history: Sequence[Message] = ()) -> Outcome:
        """Make turns until there is an answer, or a limit is reached.

        Args:
            history: The conversation of earlier questions.

        Raises:
            ModelError: The root model failed at its first call.
        """
        outcome, settings = self.outcome, self._tree.settings
        system = Message("system", system_prompt(self._tree, self._depth, self.typed))
        question = first_question(self._tree, self._repl, self.query, self._depth)
        self.conversation.begin(history or [system], question)
        self.reading.sent = 0
        await self._begin()
        try:
            for _ in range(settings.max_iterations):
                if await self._turn():
                    break
            else:
                await self._close("the limit of turns is reached")
        except BudgetSpentError as spent:
            outcome.stop_reason = spent.reason
            if not outcome.turns:
                outcome.error = str(spent)
            # The reserve is for the root's closing call; a child returns the best it has.
            if not self._depth and spent.reason == "budget_tokens":
                await self._close("the budget is spent")
            elif not self._depth and spent.reason == "budget_calls":
                is_final = await self._close("the budget allows this call and no further one")
                is_short = self._tree.purse.spent_out is not None or self._asking.refused
                if is_final and not is_short and not await self.reading.missing(outcome.turns):
                    outcome.stop_reason = "final"  # it needed every call, and was refused none
        outcome.error = outcome.error or await self.reading.missing(outcome.turns)
        if outcome.stop_reason != "final":
            self.settle()
        return outcome

    def settle(self) -> None:
        """Set the partial answer of a run that did not finish."""
        self.outcome.partial = self.outcome.partial or self._partial()
        if self.typed.schema is None:
            self.outcome.answer = self.outcome.partial

    def history(self, before: list[Message], *, is_answered: bool = True) -> list[Message]:
        """The history for the next question of a session; without any turn, the history before this
        question.
        """
        return (
            self.conversation.for_next_question(complete=is_answered)
            if self.outcome.turns
            else before
        )

    async def _begin(self) -> None:
        """Open the sandbox while the root model is thinking. The first time in a process, wait for
        it, so that nothing is paid if no sandbox can start.

        A child opens its sandbox after its first reply: many children may wait for a model.
        """
        if self._depth:
            return
        opened = runtime.shared("sandboxes that opened", set[str])
        name = self._tree.settings.sandbox.name
        if name in opened:
            self._repl.begin(self._tree)
        else:
            await self._repl.opened(self._tree)
            opened.add(name)

    async def _turn(self, *, closing: bool = False) -> bool:
        """Make one turn. Returns whether the run is over."""
        outcome, emit = self.outcome, self._tree.emit
        number = len(outcome.turns) + 1
        emit(TurnStarted(id=self.id, iteration=number))
        record = await self._ask(number, closing=closing)
        if record.error is not None:
            if not outcome.turns:
                raise self._form.failure(record.error)
            outcome.stop_reason, outcome.error = "model_error", str(record.error)
            return True
        self._blocks.begin_turn(is_first=not outcome.turns)
        is_final, prompt = False, None
        try:
            prompt = await self.reading.prompt(outcome.messages)
            reply = await self._parse(record)
            results = await self._run_blocks(reply)
            note = await self._finish(reply, results, prompt, closing=closing)
            is_final = note is None
            if note is not None:
                self._note(
                    reply,
                    results,
                    note,
                    repeated=repetition_note(outcome.turns, record.reply, self._blocks.executions),
                )
        # Also if the run is cancelled during the turn: paid calls stay in the record
        finally:
            turn = Iteration(
                iteration=number,
                reply=record.reply,
                prompt=prompt,
                executions=tuple(self._blocks.executions),
                note="\n\n".join(self._blocks.notes),
                start=self._tree.clock.since(record.start),
                call_end=self._tree.clock.since(record.end),
                end=self._tree.clock.now(),
                **call_fields(record),
            )
            outcome.turns.append(turn)
            emit(TurnFinished(id=self.id, turn=turn))
        if is_final:
            outcome.stop_reason = "final"
            return True
        return self._is_stuck() or self._observe(reply, results)

    async def _ask(self, number: int, *, closing: bool) -> CallRecord:
        self.conversation.compact()
        settings, purse = self._tree.settings, self._tree.purse
        for attempt in itertools.count():
            messages = self.outcome.messages
            if purse.limits_replies and not self._depth:
                # The closing request will contain this reply and the output of its code.
                history = await self.meter.most_tokens(messages)
                purse.reserve_closing(
                    history
                    + settings.limits.reply_tokens
                    + settings.limits.stdout_shown // 2
                    + 1_000
                )
            call = CallId(self._path, 0, CLOSE if closing else TURN, occurrence=number)
            call = call.item(attempt) if attempt else call
            request = Request(
                tuple(messages),
                role="root",
                query=self.query,
                path=call.path,
                depth=self._depth,
                schema=self._form.schema,
            )
            record = await self._tree.models.ask_root(
                call, request, self.meter, parent=self.id, closing=closing and not self._depth
            )
            if (
                record.error is None
                or record.error.type != "context_length"
                or not self.conversation.compact_after_refusal()
            ):
                return record
        raise AssertionError("unreachable")

    async def _parse(self, record: CallRecord) -> Reply:
        """Parse a reply, and add it to the conversation."""
        text, is_cut = record.reply, getattr(record.reply, "truncated", False)
        reply = await runtime.parse_apart(self._form.parse, text[:_MAX_PARSED_CHARS], is_cut=is_cut)
        if not reply.written or reply.words is not None:
            said = record.reply if reply.words is None else reply.words
            self._spoken[len(self.outcome.turns) + 1] = said
        self.conversation.add_reply(text[: reply.cut].rstrip())
        return reply

    async def _run_blocks(self, reply: Reply) -> list[ExecutionResult]:
        """Run the blocks in order until one fails."""
        results: list[ExecutionResult] = []
        for block in reply.blocks:
            if block.note is not None:
                continue
            results.append(await self._blocks.run(block.code))
            if results[-1].status != "ok":
                break
        return results

    async def _finish(
        self,
        reply: Reply,
        results: list[ExecutionResult],
        prompt: PromptPieces | None,
        *,
        closing: bool,
    ) -> str | None:
        """Check the answer of a reply to this prompt.

        Returns:
            None if the reply finished the run; otherwise the message to the model about its final,
            or "" if there was none.
        """
        found = await answer_of(reply, results, self._blocks.run, closing=closing)
        kept = found.final or found.refused
        self._final = self._bounded(kept) if kept is not None else self._final
        if (final := found.final) is None:
            return found.message
        final = self.typed.joined(final)
        try:
            answer = await runtime.offload(self.typed.read, final.value)
        except AnswerTooLongError as error:
            return prompts.tell_too_long(str(error))
        except InvalidAnswerError as error:
            return prompts.invalid(str(error))
        outcome, quotes = self.outcome, self._blocks.quotes
        if not closing:
            ran = tuple(self._blocks.executions)
            turn = Iteration(
                iteration=len(outcome.turns) + 1, reply="", prompt=prompt, executions=ran
            )
            if unread := await self.reading.refusal([*outcome.turns, turn]):
                return unread
        outcome.answer = answer
        verified = await self._tree.verify_evidence(
            final.evidence, self._repl.corpus, quotes.ambiguous
        )
        outcome.cite(verified, unchecked=quotes.unchecked, in_place=self._depth == 0)
        return None

    def _note(
        self, reply: Reply, results: list[ExecutionResult], note: str, *, repeated: str
    ) -> None:
        """Add the notes that the model gets in addition to its output."""
        rebound = dict.fromkeys(name for result in results for name in result.rebound)
        self._blocks.notes[:0] = [
            *prompts.notes(reply.notes),
            *([prompts.rebound(list(rebound))] if rebound else []),
        ]
        if note and note not in self._blocks.notes:
            self._blocks.notes.append(note)
        if repeated:
            self._blocks.notes.append(repeated)
        if self._blocks.quotes.unchecked and not self._has_reported_unreadable:
            self._has_reported_unreadable = True
            self._blocks.notes.append(prompts.UNREADABLE)
        if not self._blocks.notes and not reply.blocks:
            self._blocks.notes.append(self._form.nothing_to_do)

    def _bounded(self, final: FinalValue) -> FinalValue:
        """A final without its evidence, cut at the maximum length of an answer."""
        return (
            FinalValue(self.typed.text(final.value))
            if self.typed.is_too_long(final.value)
            else FinalValue(final.value)
        )

    def _observe(self, reply: Reply, results: list[ExecutionResult]) -> bool:
        """Report the results of a turn to the model. Returns whether a limit ends the run here."""
        parts = (
            [
                prompts.observation(
                    results, written=reply.written, shown=self._tree.settings.limits.stdout_shown
                )
            ]
            if results
            else []
        )
        left = prompts.turns_left(self._tree.settings.max_iterations - len(self.outcome.turns))
        left += self._reminder.notes(self._tree.purse.remaining())
        self.conversation.add_user("\n\n".join([*parts, *self._blocks.notes, *left]))
        if len(self._blocks.losses) > LOSSES:
            self.outcome.stop_reason, self.outcome.error = "sandbox_lost", self._blocks.losses[-1]
            return True
        if self._tree.purse.spent_out is not None:
            raise BudgetSpentError(self._tree.purse.spent_out)
        return False

    def _is_stuck(self) -> bool:
        if is_stuck(self.outcome.turns):
            self.outcome.stop_reason = "repeated_reply"
            return True
        return False

    async def _close(self, reason: str) -> bool:
        """Request the best answer in one closing turn, whose code runs but cannot call models.

        Returns:
            Whether the model gave a final.
        """
        outcome, before = self.outcome, len(self.outcome.turns)
        stop_reason = outcome.stop_reason
        self.conversation.close(
            prompts.closing(reason, self._tree.settings.prompt.closing, self._form.finish)
        )
        self._asking.closed = "this is the last turn, and models cannot be called any more"
        try:
            await self._turn(closing=True)
        except BudgetSpentError:
            pass
        except ModelError as error:
            outcome.error = str(error)
        for turn in outcome.turns[before:]:
            if outcome.stop_reason != "final":
                # An answer in prose, without FINAL
                outcome.partial = words_of(turn, self._spoken)
        is_final, outcome.stop_reason = outcome.stop_reason == "final", stop_reason
        return is_final

    def _partial(self) -> str:
        """The partial answer of a run that did not finish: the last value of a FINAL, or the last
        output or prose.
        """
        if self._final is not None:
            return self.typed.text(self._final.value)
        return best_words(self.outcome.turns, self._spoken)
