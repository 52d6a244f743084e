"""Context rot of the root itself: near the window older outputs are shortened, the record stays whole, and the prefix changes rarely."""

import pytest

from rlm_integrations import Limits
from rlm_integrations.engine.budget import estimate
from tests.engine.conftest import Scripted, code, final, run

TURNS = 40


def talk(characters: int) -> list[str]:
    """Turns that print much and say which they are."""
    return [code(f"print('output {turn} ' * {characters // 9})") for turn in range(TURNS)]


@pytest.mark.parametrize("window", [16_000, 32_000])
async def test_the_conversation_stays_within_the_window(window: int) -> None:
    """However many turns there are, no request is larger than the window's part that is set."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = window
    result = await run(root, max_iterations=TURNS + 1)
    assert (result.answer, result.iterations) == ("done", TURNS + 1)
    assert max(estimate(request.messages) for request in root.requests) <= window * 0.7
    assert any("characters of output are no longer shown" in message.content for message in result.messages)


async def test_the_prefix_changes_once_and_not_at_each_turn() -> None:
    """A provider's prefix cache holds from one compaction to the next: of forty turns only a few begin anew."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = 32_000
    await run(root, max_iterations=TURNS + 1)
    pairs = list(zip(root.requests, root.requests[1:], strict=False))
    changes = [after.messages[: len(before.messages)] != before.messages for before, after in pairs]
    assert 1 <= sum(changes) <= 6


async def test_question_prompt_and_the_latest_outputs_stay() -> None:
    """What the model needs now is there word for word: the task, and the last outputs."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = 16_000
    await run(root, max_iterations=TURNS + 1)
    for turn, request in enumerate(root.requests[2:], 2):
        assert request.messages[:2] == root.requests[0].messages[:2]
        assert request.messages[-1].content.count(f"output {turn - 1} ") > 300
        assert request.messages[-3].content.count(f"output {turn - 2} ") > 300 or turn == 2


async def test_the_record_stays_whole() -> None:
    """Every output is in the trajectory as it was, and every reply."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = 16_000
    result = await run(root, max_iterations=TURNS + 1)
    assert [execution.stdout for execution in result.repl_history[:-1]] == [f"output {turn} " * 333 + "\n" for turn in range(TURNS)]
    assert [turn.reply for turn in result.trajectory] == [*talk(3_000), final("'done'")]


async def test_short_conversations_are_only_appended_to() -> None:
    """Below the threshold each request begins with the one before, to the character."""
    root = Scripted([*talk(300)[:20], final("'done'")])
    await run(root, max_iterations=TURNS)
    for before, after in zip(root.requests, root.requests[1:], strict=False):
        assert after.messages[: len(before.messages)] == before.messages


async def test_the_limits_say_when_and_for_which_window() -> None:
    """A model that does not know its window has `Limits.window`; `compact_at` says from which part of it on."""
    for limits in (Limits(window=16_000), Limits(window=32_000, compact_at=0.35)):
        root = Scripted([*talk(3_000), final("'done'")])
        await run(root, max_iterations=TURNS + 1, limits=limits)
        assert max(estimate(request.messages) for request in root.requests) <= 11_200


async def test_roles_alternate() -> None:
    """After the system prompt user and assistant take turns, also at the closing request: many providers refuse anything else."""
    root = Scripted([code("x = 1"), "no code at all", code("1 / 0"), "the best I have"])
    result = await run(root, max_iterations=3)
    assert [message.role for message in result.messages] == ["system", *["user", "assistant"] * 4, "user"]
    assert "This is the last turn" in root.told[3]
