"""`Limits.single_call_below`: a small document is answered in one call, without a REPL; off by
default.
"""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from rlm_integrations import RLM, Budget, Limits
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ModelError
from rlm_integrations.events import Event, RunFinished, TurnFinished, TurnStarted
from tests.engine.conftest import Scripted, check_citations, code, final, models, overlong, run
from tests.standin import Fault, StandIn

TEXT = "The bridge was closed in 1512.\nNobody crossed it until 1530."
REPLY = "It was closed for 18 years.\n> The bridge was closed in 1512.\n> Nobody crossed it until 1530.\n> It was never opened."
SMALL = Limits(single_call_below=1_000)


async def test_a_small_document_is_answered_by_one_call() -> None:
    """The prompt has the whole document; quotes become verified citations and are removed from the
    answer; no sandbox is opened.
    """
    events: list[Event] = []
    root = Scripted([REPLY])
    result = await run(root, TEXT, limits=SMALL, on_event=events.append)
    assert (result.answer, result.stop_reason, result.total_calls, result.iterations) == (
        "It was closed for 18 years.",
        "final",
        1,
        1,
    )
    assert [each.quote for each in result.citations] == TEXT.splitlines()
    assert result.dropped_citations == 1
    check_citations(result, TEXT)
    assert TEXT in root.told[0]
    assert (result.layers, result.repl_history) == ({}, ())
    assert [
        type(event)
        for event in events
        if isinstance(event, TurnStarted | TurnFinished | RunFinished)
    ] == [
        TurnStarted,
        TurnFinished,
        RunFinished,
    ]


@pytest.mark.parametrize(
    ("limits", "at_once"),
    [(Limits(), False), (Limits(single_call_below=len(TEXT)), False), (SMALL, True)],
)
async def test_it_is_off_by_default_and_for_larger_documents(limits: Limits, at_once: bool) -> None:
    """Only documents with fewer characters than the setting are answered in one call."""
    root = Scripted([final("'by the loop'")])
    result = await run(root, TEXT, limits=limits)
    assert (TEXT in root.told[0].partition("It begins")[0]) == at_once
    assert (result.answer == "by the loop") != at_once


async def test_several_texts_and_none() -> None:
    """All texts of a list are in the prompt; an empty document is allowed."""
    root = Scripted(["So it is."])
    await run(root, ["one text", "another text"], limits=SMALL)
    await run(root, "", limits=SMALL)
    assert "one text\n\nanother text" in root.told[0]
    assert root.told[1].startswith("Question: What is it?")


class Bridge(BaseModel):
    closed: int


@pytest.mark.parametrize(
    "reply",
    ['{"closed": 1512}\n> The bridge was closed in 1512.', '```json\n{"closed": 1512}\n```'],
)
async def test_a_typed_answer_is_read_from_json(reply: str) -> None:
    """The schema is in the prompt; quotes and a fence around the answer are ignored."""
    root = Scripted([reply])
    result = await run(root, TEXT, limits=SMALL, output_type=Bridge)
    assert (result.answer, result.total_calls) == (Bridge(closed=1512), 1)
    assert '"closed"' in root.requests[0].messages[0].content


async def test_an_invalid_typed_answer_starts_the_loop() -> None:
    """After an invalid typed answer the loop runs, and the record has both."""
    root = Scripted()
    replies = iter(["In 1512, I think.", code("FINAL({'closed': 1512})")])
    root._next = lambda _request: next(replies)  # type: ignore[method-assign] # a new conversation begins, so turns cannot be counted
    result = await run(root, TEXT, limits=SMALL, output_type=Bridge)
    assert (result.answer, result.stop_reason, result.total_calls) == (
        Bridge(closed=1512),
        "final",
        2,
    )
    assert [turn.iteration for turn in result.trajectory] == [1, 2]
    assert "does not fit the schema" in result.trajectory[0].note
    assert [request.path for request in root.requests] == ["r:single", "r:t2"]


async def test_a_failure_is_raised(server: StandIn) -> None:
    """Without any answer, the model's error is raised."""
    server.change(faults=[Fault("auth")])
    (lm,) = models(server.base_url, "root")
    with pytest.raises(ModelError) as caught:
        await RLM(lm, limits=SMALL).acompletion("What?", TEXT)
    assert caught.value.type == "auth"


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"max_seconds": 0.2}, "budget_seconds"),
        ({"max_tokens": 50}, "budget_tokens"),
        ({"max_calls": 1}, "final"),
    ],
)
async def test_the_budget_holds(budget: dict[str, Any], reason: str) -> None:
    """A time limit ends the call, a token limit refuses it."""
    root = Scripted([REPLY])
    if "max_seconds" in budget:
        root._next = overlong(10)  # type: ignore[method-assign,assignment] # a root that is slow
    async with asyncio.timeout(60):
        result = await run(root, TEXT, limits=SMALL, budget=Budget(**budget))
    assert result.stop_reason == reason
    assert root.open == 0


async def test_the_record_names_the_document_and_does_not_repeat_it() -> None:
    """The recorded prompt has spans, from which the document rebuilds it; the messages name the
    spans.
    """
    texts = ["The bridge was closed in 1512. " * 1_000, "", "Nobody crossed it. " * 1_000]
    root = Scripted([REPLY])
    result = await run(root, texts, limits=Limits(single_call_below=100_000))
    assert len(json.dumps(result.to_dict())) < 10_000
    assert result.messages[1].content == (
        "Question: What is it?\n\n[context_0, characters 0 to 31,000]\n\n\n\n[context_2, characters 0 to 19,000]"
    )
    (turn,) = result.trajectory
    assert turn.prompt is not None
    with Corpus.build(texts) as corpus:
        assert turn.prompt.text(corpus) == root.told[0]


async def test_the_record_of_a_chat_names_the_document_too() -> None:
    """Later questions send the document again, and no record contains it."""
    document = "The bridge was closed in 1512. " * 1_000
    root = Scripted(["In 1512.", "In 1530."])
    async with RLM(root, limits=Limits(single_call_below=100_000)).session(document) as chat:
        for question in ("When was it closed?", "And opened?"):
            result = await chat.acompletion(question)
            assert document not in json.dumps(result.to_dict())
    assert document in root.requests[1].messages[1].content


async def test_a_chat_continues_its_conversation() -> None:
    """The second question follows the first answer; the document is sent once."""
    root = Scripted(["In 1512.", "In 1530."])
    async with RLM(root, limits=SMALL).session(TEXT) as chat:
        assert (await chat.acompletion("When was it closed?")).answer == "In 1512."
        assert (await chat.acompletion("And opened?")).answer == "In 1530."
    assert [message.role for message in root.requests[1].messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert sum(TEXT in message.content for message in root.requests[1].messages) == 1
