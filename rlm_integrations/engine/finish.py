"""Finds the answer of a reply: from its code, in its prose, or in a block that could not run."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from rlm_integrations._concurrency.runtime import parse_apart
from rlm_integrations.engine import prompts
from rlm_integrations.engine.parsing import Note, Reply
from rlm_integrations.engine.parsing.finals import ProseFinal, literal_of_final_var, lone_final
from rlm_integrations.records import LLMError
from rlm_integrations.sandbox.base import ExecutionResult, FinalValue
from rlm_integrations.trajectory import Iteration

RunCode = Callable[[str], Awaitable[ExecutionResult]]

_USUAL_NAMES = {"answer", "context", "output", "response", "result", "results", "store", "summary"}
_MAX_ERRORS = 100
# Letters and digits beside an error that may be only its label, as in "Answer: Error: …"
_MAX_LABEL_CHARS = 20


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """The answer of a reply, if it has one.

    Attributes:
        final: The answer, before its type and evidence are checked.
        message: If there is no answer: the message to the model about its attempt, or "" if it made
            none.
        refused: A value that was not accepted, but is the best so far.
    """

    final: FinalValue | None = None
    message: str = ""
    refused: FinalValue | None = None


async def answer_of(
    reply: Reply, results: Sequence[ExecutionResult], run_code: RunCode, *, closing: bool
) -> FoundAnswer:
    """The answer of a reply whose blocks have run.

    Args:
        reply: The reply.
        results: The results of its blocks.
        run_code: Runs a line in the REPL, which has the variables.
        closing: Whether this is the last turn: the model cannot correct its reply, so an answer
            that is clearly intended is accepted.
    """
    found = await _answer_of(reply, results, run_code, closing=closing)
    return (
        found
        if found.final is not None or not closing
        else await _last_resort(reply, results, run_code, found)
    )


async def _answer_of(
    reply: Reply, results: Sequence[ExecutionResult], run_code: RunCode, *, closing: bool
) -> FoundAnswer:
    final = _combine([result.final for result in results if result.final is not None])
    if any(result.status != "ok" for result in results):
        return FoundAnswer(
            message=prompts.note(Note("final_refused")) if final or reply.final else "",
            refused=final,
        )
    if final is not None and final.several and not closing:
        return FoundAnswer(message=prompts.SEVERAL_FINALS, refused=final)
    if final is not None or reply.final is None:
        return FoundAnswer(final)
    return await _resolve(reply.final, run_code)


def _combine(finals: Sequence[FinalValue]) -> FinalValue | None:
    """The answer of several blocks. Different values become a list, because it is not known which
    one is intended.
    """
    if not finals:
        return None
    value = finals[-1].value
    if all(
        type(each.value) is type(value)
        and isinstance(value, str | int | float)
        and each.value == value
        for each in finals[:-1]
    ):
        return finals[-1]
    return FinalValue(
        [each.value for each in finals],
        tuple(place for each in finals for place in each.evidence),
        several=True,
    )


async def _resolve(prose: ProseFinal, run_code: RunCode) -> FoundAnswer:
    """The answer of a final in prose."""
    result = await run_code(prose.code)
    if result.status in {"interrupted", "lost"}:
        return FoundAnswer(message=prompts.note(Note("final_refused")), refused=result.final)
    if result.final is not None:
        return FoundAnswer(result.final)
    unbound = result.error is not None and result.error.type == "NameError"
    if prose.kind in {"value", "words"} or (prose.kind == "name" and unbound):
        return FoundAnswer(FinalValue(prose.text))
    if prose.kind == "variable":
        return FoundAnswer(message=prompts.unknown_variable(prose.text, result.locals))
    return FoundAnswer(message=prompts.unresolved(result.error))


async def _last_resort(
    reply: Reply, results: Sequence[ExecutionResult], run_code: RunCode, found: FoundAnswer
) -> FoundAnswer:
    """The answer that the last turn's reply clearly intends, although its form is not valid."""
    for block in reversed(reply.blocks):
        prose = await parse_apart(lone_final, block.code) if block.note is not None else None
        if prose is not None:
            resolved = await _resolve(prose, run_code)
            return resolved if resolved.final is not None else found
    for note in reply.notes:
        if note.kind == "final_beside_code":
            return FoundAnswer(FinalValue(note.detail))
    literal = None
    if reply.final is not None and reply.final.kind == "variable":
        literal = reply.final.text
    elif (
        results
        and results[-1].error is not None
        and results[-1].error.message.startswith("FINAL_VAR(")
    ):
        code = [block.code for block in reply.blocks if block.note is None][len(results) - 1]
        literal = await parse_apart(literal_of_final_var, code)
    # The name of a variable is not an answer, even in the last turn.
    return (
        FoundAnswer(FinalValue(literal))
        if literal is not None and "_" not in literal and literal not in _USUAL_NAMES
        else found
    )


def best_words(turns: Sequence[Iteration], spoken: Mapping[int, str]) -> str:
    """The last printed output or prose of a run, ignoring failed calls and code that did not run.

    Args:
        turns: The turns of the run.
        spoken: What replies say that have no code, by the numbers of their turns.
    """
    failed = {
        call.reply
        for turn in turns
        for each in turn.executions
        for call in each.subcalls
        if isinstance(call.reply, LLMError)
    }
    errors = [
        text.partition("\n")[0]
        for error in sorted(failed)[:_MAX_ERRORS]
        for text in (str(error), repr(error))
    ]
    for turn in reversed(turns):
        for execution in reversed(turn.executions):
            if printed := _without(errors, execution.stdout):
                return printed
        if words := words_of(turn, spoken):
            return words
    last = ""
    if turns and not turns[-1].executions:
        last = spoken.get(turns[-1].iteration, turns[-1].reply).strip()
    return "" if "```" in last else last  # code that did not run is not an answer


def words_of(turn: Iteration, spoken: Mapping[int, str]) -> str:
    """What the reply of a turn says if it has no code, otherwise ""."""
    return "" if turn.executions else spoken.get(turn.iteration, "").strip()


def _without(errors: Sequence[str], printed: str) -> str:
    """The output of a block, without the lines that only report a failed call."""
    if not any(error in printed for error in errors):
        return printed.strip()
    return "\n".join(line for line in printed.splitlines() if _says_more(line, errors)).strip()


def _says_more(line: str, errors: Sequence[str]) -> bool:
    rest = line
    for error in errors:
        rest = rest.replace(error, "")
    return rest == line or sum(map(str.isalnum, rest)) > _MAX_LABEL_CHARS
