"""The result so far of a run that has none yet: rebuilt from the records of its journal."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final

from rlm_integrations._concurrency import runtime
from rlm_integrations.engine.answer import AnswerType
from rlm_integrations.engine.block_outcome import BlockOutcome
from rlm_integrations.engine.budget import Purse
from rlm_integrations.engine.call_id import CLOSE, SINGLE, TURN, CallId
from rlm_integrations.engine.child_requests import ChildAnswer
from rlm_integrations.engine.finish import best_words
from rlm_integrations.engine.journal import Answer
from rlm_integrations.engine.model_calls import ModelAnswer
from rlm_integrations.engine.notebook import Notebook, Quotes, RecordRoom
from rlm_integrations.engine.parsing import Reply
from rlm_integrations.engine.reply_form import ReplyForm, form_of
from rlm_integrations.engine.stored_journal import PastJournal
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import Budget, Limits
from rlm_integrations.result import RLMResult, StopReason
from rlm_integrations.run_setup import RunSetup
from rlm_integrations.sandbox.base import ExecutionResult
from rlm_integrations.store import SharedStore
from rlm_integrations.trajectory import Execution, Iteration, SubCall, call_fields

_ROOT: Final = "r"
_ROOT_CALLS: Final = frozenset({TURN, CLOSE, SINGLE})
_MAX_PARSED_CHARS: Final = 1_000_000
_UNKNOWN_PROMPT: Final = PromptPieces((), (), "")
_UNFINISHED: Final = ExecutionResult(status="interrupted")
_CHILD: Final = re.compile(r"(?P<run>.*)\.b(?P<block>\d+)/[^/]*")  # the path of a child run


def partial_result(
    run_id: str, setup: RunSetup, records: Sequence[bytes], stop_reason: StopReason
) -> RLMResult:
    """The result of a run as far as its records go; see `Storage.run`. Blocks.

    Args:
        run_id: The id of the run.
        setup: What it was made with.
        records: The records of its journal.
        stop_reason: Why it has no result.

    Raises:
        InputError: A record is damaged, or was written by a later version.
    """
    journal = PastJournal(records)
    record = _Record(journal, form_of(structured=setup.options.get("structured") is True))
    turns = tuple(record.turns(_ROOT))
    partial = record.partial(turns)
    purse = record.purse()
    has_store = setup.options.get("store_mode") != "none" and setup.options.get("store") is None
    store = SharedStore() if has_store else None
    if store is not None:
        store.backend.restore(journal.store_events())
    return RLMResult(
        answer=partial if setup.options.get("output_type") is None else None,
        partial=partial,
        stop_reason=stop_reason,
        iterations=len(turns),
        total_calls=purse.calls,
        spent=purse.tally(),
        trajectory=turns,
        run_id=run_id,
        elapsed=journal.elapsed,
        store=store,
        question=setup.question,
        sources=setup.sources,
        models=setup.models,
        options=setup.options,
        version=setup.version,
        started=setup.started,
    )


class _Record:
    """The records of a run and its child runs, by the runs and blocks that made the calls."""

    def __init__(self, journal: PastJournal, form: ReplyForm) -> None:
        self._answers = journal.answers
        self._room = RecordRoom(Limits().recorded_chars)
        self._replies: defaultdict[str, list[ModelAnswer]] = defaultdict(list)
        self._blocks: dict[tuple[str, int], tuple[str, BlockOutcome]] = {}
        self._calls: defaultdict[tuple[str, int], list[tuple[CallId, Answer]]] = defaultdict(list)
        self._ended = set[str]()  # the paths of child runs
        self._parse = form.parse
        self._spoken = dict[int, str]()  # what the root's replies say that have no code, by turn
        for call, answer in self._answers.items():
            value = answer.value
            if call.function in _ROOT_CALLS and isinstance(value, ModelAnswer):
                self._replies[call.run].append(value)
            elif isinstance(value, BlockOutcome):
                self._blocks[call.run, call.block] = call.digest, value
            else:
                self._calls[call.run, call.block].append((call, answer))
            if isinstance(value, ChildAnswer):
                self._ended.add(call.path)

    def turns(self, run: str) -> Iterator[Iteration]:
        """The turns of a run whose replies are known."""
        replies = sorted(self._replies[run], key=lambda reply: reply.record.start)
        own = [block for path, block in [*self._blocks, *self._calls] if path == run]
        first = min(own, default=1)  # the blocks of a session are counted through
        numbers = count(first)
        for number, answer in enumerate(replies, 1):
            record = answer.record
            reply: Reply = runtime.parse_waiting(
                self._parse,
                record.reply[:_MAX_PARSED_CHARS],
                is_cut=record.finish_reason == "length",
            )
            if run == _ROOT and (not reply.written or reply.words is not None):
                self._spoken[number] = record.reply if reply.words is None else reply.words
            executions = tuple(self._executions(run, reply, numbers, record.end))
            yield Iteration(
                iteration=number,
                reply=record.reply,
                executions=executions,
                start=record.start,
                call_end=record.end,
                end=max([record.end, *(each.start + each.elapsed for each in executions)]),
                **call_fields(record),
            )

    def _executions(
        self, run: str, reply: Reply, numbers: "count[int]", start: float
    ) -> Iterator[Execution]:
        """The blocks of a reply that were run, or at least begun."""
        for block in reply.blocks:
            if block.note is not None:
                continue
            number = next(numbers)
            digest, outcome = self._blocks.get((run, number), ("", None))
            encoded = block.code.encode("utf-8", "surrogatepass")
            if outcome is not None and digest != hashlib.sha256(encoded).hexdigest():
                return  # a later version parses the reply differently
            result = _UNFINISHED if outcome is None else outcome.result
            notebook = Notebook(self._room, Quotes())
            for sub in self._sub_calls(run, number):
                notebook.add(sub)
            for _, answer in self._calls[run, number]:
                for note in answer.notes:
                    notebook.add_note(note)
            execution = notebook.execution(number, block.code, result, start=start, elapsed=0.0)
            start += execution.elapsed
            yield execution
            if result.status != "ok":
                return

    def _sub_calls(self, run: str, block: int) -> Iterator[SubCall]:
        """The model calls and child runs of a block that were answered."""
        depth = run.count("/") + 1
        for call, answer in self._calls[run, block]:
            match answer.value:
                case ModelAnswer(record):
                    yield SubCall(
                        path=call.path,
                        function=call.function,
                        prompt=_UNKNOWN_PROMPT,
                        reply=record.reply,
                        depth=depth,
                        start=record.start,
                        end=record.end,
                        **call_fields(record),
                    )
                case ChildAnswer(result):
                    yield SubCall(
                        path=call.path,
                        function=call.function,
                        model="",
                        prompt=_UNKNOWN_PROMPT,
                        reply=result.reply,
                        depth=depth,
                        start=answer.value.start,
                        end=answer.value.end,
                        turns=result.turns,
                        citations=result.citations,
                        dropped_citations=result.dropped_citations,
                    )

    def partial(self, turns: Sequence[Iteration]) -> str:
        """The best answer so far: the last value of a FINAL, or the last output or prose."""
        finals: list[Any] = [
            outcome.result.final
            for (run, _), (_, outcome) in sorted(self._blocks.items(), key=lambda each: each[0])
            if run == _ROOT and outcome.result.final is not None
        ]
        if finals:
            return AnswerType(most=Limits().answer_chars).text(finals[-1].value)
        return best_words(turns, self._spoken)

    def purse(self) -> Purse:
        """What all recorded calls took."""
        purse = Purse(Budget(), Limits().reply_tokens, 0.0)
        for call, answer in self._answers.items():
            if self._is_in_ended(call.run):
                continue  # the child run's own record has its charges
            match answer.value:
                case ModelAnswer(charge=charge) if charge is not None:
                    purse.charge(charge)
                case ChildAnswer(charges=charges):
                    for charge in charges:
                        purse.charge(charge)
        return purse

    def _is_in_ended(self, run: str) -> bool:
        """Whether a run is a child run that has ended, or is inside one."""
        while (found := _CHILD.fullmatch(run)) is not None:
            if run in self._ended:
                return True
            run = found["run"]
        return False
