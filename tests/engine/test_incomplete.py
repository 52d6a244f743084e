"""Runs without a final answer: their results, and their errors with `on_incomplete="raise"`."""

from typing import Any

import pytest
from pydantic import BaseModel

from rlm_integrations import RLM, Budget, IncompleteError, RLMResult
from rlm_integrations.errors import BudgetExceededError, InputError, RLMError
from rlm_integrations.events import RunFinished
from tests.engine.conftest import Scripted, code, final, run


class Dam(BaseModel):
    name: str


LOOKS = [code(f"print('look {n}')") for n in range(9)]
CLOSED = [*LOOKS[:2], "It was probably Ada."]
REPEATED = [code("print(1)")] * 9
INVALID = [final("{'name': 1}")] * 9
ENDS: list[tuple[list[str], dict[str, Any], str, str]] = [
    (CLOSED, {"max_iterations": 2}, "max_iterations", "It was probably Ada."),
    (REPEATED, {}, "repeated_reply", "1"),
    (LOOKS, {"budget": Budget(max_calls=3)}, "budget_calls", "look 2"),
]
NEVER_VALID = (INVALID, {"max_iterations": 3}, "max_iterations", '{"name": 1}')


@pytest.mark.parametrize(("script", "options", "reason", "words"), ENDS)
async def test_a_text_that_is_not_final_is_the_answer_and_is_marked_as_partial(
    script: list[str], options: dict[str, Any], reason: str, words: str
) -> None:
    """Without a type the best text so far is the answer; `partial` has it too, and is None after a
    final.
    """
    result = await run(Scripted(script), **options)
    assert (result.stop_reason, result.answer, result.partial) == (reason, words, words)
    assert (await run(Scripted([final("'Ada'")]), **options)).partial is None


@pytest.mark.parametrize(("script", "options", "reason", "words"), [*ENDS, NEVER_VALID])
async def test_a_run_that_did_not_finish_has_no_answer_of_another_type(
    script: list[str], options: dict[str, Any], reason: str, words: str
) -> None:
    """With a type, the answer is of the type or None: partial text has a separate field."""
    result = await run(Scripted(script), output_type=Dam, **options)
    assert (result.stop_reason, result.answer, result.partial) == (reason, None, words)


async def test_a_value_that_fits_in_the_closing_turn_is_an_answer() -> None:
    """A valid value in the closing turn is the answer, and the stop reason is still the limit."""
    result = await run(
        Scripted([*LOOKS[:2], final("{'name': 'Ravenna'}")]), output_type=Dam, max_iterations=2
    )
    assert (result.stop_reason, result.answer, result.partial) == (
        "max_iterations",
        Dam(name="Ravenna"),
        '{"name": "Ravenna"}',
    )


@pytest.mark.parametrize(("script", "options", "reason", "words"), ENDS)
@pytest.mark.parametrize("api", ["completion", "acompletion", "stream", "session"])
async def test_every_api_raises_for_an_incomplete_run(
    api: str, script: list[str], options: dict[str, Any], reason: str, words: str
) -> None:
    """`on_incomplete="raise"` raises IncompleteError with the result, for turns, repetition and
    budgets, with every API.
    """
    rlm = RLM(Scripted(script), on_incomplete="raise", **options)
    finished: list[RLMResult] = []
    with pytest.raises(IncompleteError, match=reason) as caught:
        if api == "completion":
            rlm.completion("Who?", "a document")
        elif api == "acompletion":
            await rlm.acompletion("Who?", "a document")
        elif api == "stream":
            events = rlm.stream("Who?", "a document")
            finished.extend(event.result for event in events if isinstance(event, RunFinished))
        else:
            async with rlm.session("a document") as chat:
                await chat.acompletion("Who?")
    assert (caught.value.result.stop_reason, caught.value.result.partial) == (reason, words)
    assert isinstance(caught.value, BudgetExceededError) == reason.startswith("budget")
    assert isinstance(caught.value, RLMError)
    assert [each.partial for each in finished] == ([words] if api == "stream" else [])


async def test_a_budget_that_raises_does_so_alone() -> None:
    """`Budget(on_exceeded="raise")` concerns only budgets: a limit of turns still returns the best
    answer.
    """
    budget = Budget(max_calls=5, on_exceeded="raise")
    assert (
        await run(Scripted(CLOSED), max_iterations=2, budget=budget)
    ).stop_reason == "max_iterations"
    with pytest.raises(BudgetExceededError):
        await run(Scripted(LOOKS), budget=budget)


async def test_a_session_continues_after_an_incomplete_question() -> None:
    """After a question that raised, the session continues with its conversation."""
    root = Scripted([*CLOSED, final("'Ada'")])
    async with RLM(root, max_iterations=2, on_incomplete="raise").session("a document") as chat:
        with pytest.raises(IncompleteError):
            await chat.acompletion("Who?")
        assert (await chat.acompletion("And now?")).answer == "Ada"
    assert [message.content for message in root.requests[-1].messages][-2] == "It was probably Ada."


def test_another_value_is_refused() -> None:
    """The error for another value lists the two valid ones."""
    with pytest.raises(InputError, match="on_incomplete='stop': choose 'partial' or 'raise'"):
        RLM("offline", on_incomplete="stop")  # type: ignore[arg-type]
