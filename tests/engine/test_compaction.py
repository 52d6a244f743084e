"""Compaction of the root's conversation: near the window older outputs are shortened, the record
stays complete, and the prefix changes rarely.
"""

import pytest

from rlm_integrations import RLM, Limits
from rlm_integrations.engine.prompt_size import estimate
from rlm_integrations.errors import ModelError
from rlm_integrations.records import Completion, Request
from tests.engine.conftest import Scripted, code, final, run

TURNS = 40


def talk(characters: int) -> list[str]:
    """Turns that print much and say their number."""
    return [code(f"print('output {turn} ' * {characters // 9})") for turn in range(TURNS)]


@pytest.mark.parametrize("window", [16_000, 32_000])
async def test_the_conversation_stays_within_the_window(window: int) -> None:
    """However many turns there are, no request exceeds the configured part of the window."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = window
    result = await run(root, max_iterations=TURNS + 1)
    assert (result.answer, result.iterations) == ("done", TURNS + 1)
    assert max(estimate(request.messages) for request in root.requests) <= window * 0.7
    assert any(
        "characters of output are no longer shown" in message.content for message in result.messages
    )


async def test_the_prefix_changes_rarely() -> None:
    """A provider's prefix cache works from one compaction to the next: of forty turns only a few
    have a new prefix.
    """
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = 32_000
    await run(root, max_iterations=TURNS + 1)
    pairs = list(zip(root.requests, root.requests[1:], strict=False))
    changes = [after.messages[: len(before.messages)] != before.messages for before, after in pairs]
    assert 1 <= sum(changes) <= 6


async def test_question_prompt_and_the_latest_outputs_stay() -> None:
    """The question and the latest outputs are kept word for word."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = 16_000
    await run(root, max_iterations=TURNS + 1)
    for turn, request in enumerate(root.requests[2:], 2):
        assert request.messages[:2] == root.requests[0].messages[:2]
        assert request.messages[-1].content.count(f"output {turn - 1} ") > 300
        assert request.messages[-3].content.count(f"output {turn - 2} ") > 300 or turn == 2


async def test_the_record_stays_complete() -> None:
    """The trajectory has every output and every reply unchanged."""
    root = Scripted([*talk(3_000), final("'done'")])
    root.context_window = 16_000
    result = await run(root, max_iterations=TURNS + 1)
    assert [execution.stdout for execution in result.repl_history[:-1]] == [
        f"output {turn} " * 333 + "\n" for turn in range(TURNS)
    ]
    assert [turn.reply for turn in result.trajectory] == [*talk(3_000), final("'done'")]


async def test_short_conversations_are_only_appended_to() -> None:
    """Below the threshold each request begins with the previous one, unchanged."""
    root = Scripted([*talk(300)[:20], final("'done'")])
    await run(root, max_iterations=TURNS)
    for before, after in zip(root.requests, root.requests[1:], strict=False):
        assert after.messages[: len(before.messages)] == before.messages


async def test_the_limits_say_when_and_for_which_window() -> None:
    """A model without a known window has `Limits.window`; `compact_at` sets the part of the window
    from which outputs are shortened.
    """
    for limits in (Limits(window=16_000), Limits(window=32_000, compact_at=0.35)):
        root = Scripted([*talk(3_000), final("'done'")])
        await run(root, max_iterations=TURNS + 1, limits=limits)
        assert max(estimate(request.messages) for request in root.requests) <= 11_200


async def test_roles_alternate() -> None:
    """User and assistant messages alternate after the system prompt, even at the closing request,
    because many providers require it.
    """
    root = Scripted([code("x = 1"), "no code at all", code("1 / 0"), "the best I have"])
    result = await run(root, max_iterations=3)
    assert [message.role for message in result.messages] == [
        "system",
        *["user", "assistant"] * 4,
        "user",
    ]
    assert "This is the last turn" in root.told[3]


def thoughts(words: int) -> list[str]:
    """Turns of a root that thinks aloud, and prints little."""
    return [
        f"Thought {turn}. {'words ' * words}\n{code(f'print({turn})')}" for turn in range(TURNS)
    ]


@pytest.mark.parametrize("window", [12_000, 32_000])
async def test_a_root_that_thinks_aloud_stays_within_its_window(window: int) -> None:
    """Old replies are shortened to their beginnings too; the latest one is unchanged, and the
    record is complete.
    """
    root = Scripted([*thoughts(1_000), final("'done'")])
    root.context_window = window
    result = await run(root, max_iterations=TURNS + 1)
    assert (result.answer, result.iterations) == ("done", TURNS + 1)
    assert max(estimate(request.messages) for request in root.requests) <= window * 0.7
    assert [turn.reply for turn in result.trajectory[:-1]] == thoughts(1_000)
    last = root.requests[-1].messages
    assert "further characters of this message are no longer shown" in last[2].content
    assert last[2].content.startswith("Thought 0. words words")
    assert last[-2].content == thoughts(1_000)[-1]


async def test_messages_are_shortened_once() -> None:
    """Each message is shortened at most once, so that a provider's prefix cache works."""
    root = Scripted([*thoughts(1_000), final("'done'")])
    root.context_window = 32_000
    await run(root, max_iterations=TURNS + 1)
    for at in range(2, 20):
        contents = [
            request.messages[at].content for request in root.requests if len(request.messages) > at
        ]
        assert len(set(contents)) <= 2
    pairs = list(zip(root.requests, root.requests[1:], strict=False))
    assert (
        1
        <= sum(after.messages[: len(before.messages)] != before.messages for before, after in pairs)
        <= 8
    )


async def test_a_shortened_reply_leaves_no_open_fence() -> None:
    """A truncated block is closed in the history, so that the model does not learn to leave one
    open.
    """
    long = [
        code(f"x = {turn}", *["y = 'some more of the code'"] * 300, f"print({turn})")
        for turn in range(TURNS)
    ]
    root = Scripted([*long, final("'done'")])
    root.context_window = 12_000
    await run(root, max_iterations=TURNS + 1)
    assert all(message.content.count("```") % 2 == 0 for message in root.requests[-1].messages[1:])


async def test_an_endless_reply_is_bounded_in_the_history() -> None:
    """Of fifty million characters the next request has the beginning and the end; the record has
    all.
    """
    endless = code("print('ran')") + "\n" + "blah " * 10_000_000
    root = Scripted([endless, final("'done'")])
    result = await run(root)
    assert (result.answer, result.repl_history[0].stdout) == ("done", "ran\n")
    assert len(result.trajectory[0].reply) == len(endless)
    assert estimate(root.requests[1].messages) < 40_000
    assert "characters left out" in root.requests[1].messages[2].content


class Narrow(Scripted):
    """A root whose provider refuses requests longer than its window, which it does not report."""

    refused = 0

    def __init__(self, script: list[str], window: int) -> None:
        super().__init__(script)
        self._window = window

    async def complete(self, request: Request) -> Completion:
        if request.role == "root" and estimate(request.messages) > self._window:
            self.refused += 1
            raise ModelError("the prompt is too long", type="context_length")
        return await super().complete(request)


async def test_a_request_that_is_too_long_is_repeated_with_less() -> None:
    """The conversation is shortened and the same turn sent once more, and a smaller window is
    assumed from then on.
    """
    root = Narrow([*talk(3_000), final("'done'")], 9_000)
    result = await run(root, max_iterations=TURNS + 1)
    assert (result.answer, result.stop_reason, result.iterations) == ("done", "final", TURNS + 1)
    assert 1 <= root.refused <= 2


async def test_a_question_that_is_too_long_for_the_window_ends_the_run() -> None:
    """With nothing to shorten, the error is raised after one attempt."""
    root = Narrow(["never"], 500)
    with pytest.raises(ModelError, match="too long"):
        await run(root)
    assert root.refused == 1


async def test_the_question_of_a_session_is_never_shortened() -> None:
    """The current question is never shortened, even after earlier ones; those may be."""
    root = Scripted([*talk(3_000)[:8], final("'first'"), *talk(3_000)[9:19], final("'second'")])
    root.context_window = 16_000
    async with RLM(root).session("a small document") as chat:
        await chat.acompletion("What was first?")
        await chat.acompletion("What is the second question of this session?")
    assert all(
        "What is the second question of this session?" in str(request.messages)
        for request in root.requests[9:]
    )
    assert max(estimate(request.messages) for request in root.requests) <= 16_000 * 0.7


NOTED = {
    "```repl\nprint(1": "its fence was not closed",
    "```repl\nprint(1\n```": "it is not valid Python",
    "I do not know.": "neither a block of code nor a final answer",
    "FINAL_VAR(missing)": "there is no such variable",
}


@pytest.mark.parametrize("reply", NOTED)
async def test_what_the_model_is_told_is_in_the_record(reply: str) -> None:
    """`Iteration.note` has everything that the model was told in addition to its output."""
    root = Scripted([reply, final("'done'")])
    result = await run(root)
    assert NOTED[reply] in result.trajectory[0].note
    assert result.trajectory[0].note in root.told[1]
