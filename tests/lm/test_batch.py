"""Batches: a slot for each prompt, in order, with every API; sources of prompts, and invalid
prompts.
"""

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

import rlm_integrations
from rlm_integrations import LLMError, allm_batch, llm_batch, llm_batch_iter, llm_batch_records
from rlm_integrations.errors import InputError
from rlm_integrations.lm.batch import aparallel_query, parallel_query
from rlm_integrations.lm.batch_options import BatchOptions
from rlm_integrations.records import Completion, Message, Request, Usage
from tests.lm._local import APIS, Batch, Local


@pytest.fixture(params=APIS, ids=lambda api: api.__name__)
def batch(request: pytest.FixtureRequest) -> Batch:
    """The sync and the async API."""
    return request.param  # type: ignore[no-any-return]


def test_replies_in_order(batch: Batch) -> None:
    """There is one call and one reply for each prompt, in the order of the prompts, with at most
    `max_concurrent` calls at a time.
    """
    lm = Local(delay=0.001)
    assert batch([f"p{n}" for n in range(50)], lm, max_concurrent=7) == [
        f"re: p{n}" for n in range(50)
    ]
    assert lm.most == 7
    assert len(lm.requests) == 50


def test_no_prompts_no_replies(batch: Batch) -> None:
    """An empty list or generator returns an empty list."""
    lm = Local()
    assert batch([], lm) == []
    assert batch(iter([]), lm) == []
    assert lm.requests == []


def test_a_bad_prompt_fails_alone(batch: Batch) -> None:
    """An invalid prompt is a typed error in its own slot, without a call, and the rest is
    answered.
    """
    lm = Local()
    first, second, third = batch(["good", None, "good"], lm)
    assert (first, third) == ("re: good", "re: good")
    assert isinstance(second, LLMError)
    assert (second.type, second.retries) == ("input", 0)
    assert second.startswith(
        "Error: input: a prompt must be a string or a list of messages, not None"
    )
    assert len(lm.requests) == 2


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (7, "not 7"),
        (b"bytes", "not b'bytes'"),
        ([], "empty"),
        ({"role": "user", "content": "x"}, "a list of messages"),
        (["text"], "a message must be"),
        ([{"role": "user"}], "a message must be"),
        ([{"role": "robot", "content": "x"}], "role must be one of"),
        ([{"role": ["user"], "content": "x"}], "role must be one of"),
        ([{"role": "user", "content": None}], "content must be a string"),
        ("half \ud800 pair", r"surrogate pair \('\\ud800' at 5\)"),
        ([Message("user", "\udfff")], "surrogate pair"),
    ],
)
def test_prompts_that_cannot_be_sent(prompt: object, why: str) -> None:
    """The error says what is wrong with the prompt, and what a valid prompt is."""
    [reply] = llm_batch([prompt], Local())  # type: ignore[list-item] - that is what is tested
    assert isinstance(reply, LLMError)
    assert reply.type == "input"
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(reply.message)


def test_prompts_may_be_conversations() -> None:
    """A prompt is a string, or messages as objects or dicts; all are sent as messages, with the
    parameters.
    """
    lm = Local()
    said = [Message("system", "be brief"), Message("user", "a")]
    as_dicts = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "b"})
    assert llm_batch([said, as_dicts, "c"], lm, max_concurrent=1, params={"temperature": 0}) == [
        "re: a",
        "re: b",
        "re: c",
    ]
    assert lm.requests[0] == Request(tuple(said), {"temperature": 0}, path="b.0")
    assert lm.requests[1].messages == (Message("system", "be brief"), Message("user", "b"))


def test_a_failed_reply_as_a_prompt_is_returned() -> None:
    """An `LLMError` among the prompts, as in the replies of an earlier batch, is returned
    unchanged.
    """
    lm = Local()
    error = LLMError("timeout", "too long", 2)
    assert llm_batch(["a", error], lm) == ["re: a", error]
    assert parallel_query("sum up: {chunk}", ["a", error], lm) == ["re: sum up: a", error]
    assert len(lm.requests) == 2


async def pausing(prompts: list[str]) -> AsyncIterator[str]:
    for prompt in prompts:
        await asyncio.sleep(0)
        yield prompt


@pytest.mark.parametrize(
    "source",
    [
        tuple,
        lambda prompts: dict.fromkeys(prompts).keys(),
        lambda prompts: (prompt for prompt in prompts),
        pausing,
    ],
    ids=["tuple", "view", "generator", "async generator"],
)
def test_prompts_may_come_from_any_iterable(
    batch: Batch, source: Callable[[list[str]], Any]
) -> None:
    """Lists, views, generators and async generators are accepted by every API."""
    prompts = [f"p{n}" for n in range(25)]
    assert batch(source(prompts), Local()) == [f"re: {prompt}" for prompt in prompts]


def test_a_generator_is_pulled_as_calls_become_free() -> None:
    """A generator is never more than `max_concurrent` prompts ahead of the replies."""
    lm = Local(delay=0.001)
    pulled = 0

    def prompts() -> Iterator[str]:
        nonlocal pulled
        for n in range(60):
            pulled += 1
            assert pulled <= len(lm.requests) + 4
            yield f"p{n}"

    assert len(llm_batch(prompts(), lm, max_concurrent=4)) == 60


def test_a_generator_runs_in_the_thread_that_called() -> None:
    """A generator runs in the caller's thread, so it may use a database cursor or another batch."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t (text)")
        connection.executemany("insert into t values (?)", [(f"row {n}",) for n in range(20)])
        rows = (text for (text,) in connection.execute("select text from t order by rowid"))
        assert llm_batch(rows, Local()) == [f"re: row {n}" for n in range(20)]
    connection.close()
    first = llm_batch_iter(["a", "b"], Local(), max_concurrent=1)
    assert llm_batch((reply for _, reply in first), Local()) == ["re: re: a", "re: re: b"]


def test_a_source_that_raises(batch: Batch) -> None:
    """An exception of the source ends the batch unchanged, after the calls in flight."""
    lm = Local(delay=0.01)

    def prompts() -> Iterator[str]:
        yield from "abc"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        batch(prompts(), lm)
    assert (len(lm.requests), lm.in_flight) == (3, 0)


def test_replies_before_a_failing_source_are_delivered() -> None:
    """With `llm_batch_iter`, the replies of calls in flight are delivered before the source's
    exception.
    """

    def prompts() -> Iterator[str]:
        yield from "abc"
        raise OSError

    replies = llm_batch_iter(prompts(), Local(delay=0.01))
    assert {next(replies) for _ in range(3)} == {(0, "re: a"), (1, "re: b"), (2, "re: c")}
    with pytest.raises(OSError):
        next(replies)


@pytest.mark.parametrize(
    ("prompts", "options", "why"),
    [
        ("one text", {}, r"write \[prompt\]"),
        (b"bytes", {}, r"write \[prompt\]"),
        ({"role": "user", "content": "x"}, {}, r"write \[prompt\]"),
        (None, {}, "not None"),
        (["a"], {"max_concurrent": 0}, "max_concurrent must be an integer of at least 1, not 0"),
        (["a"], {"max_concurrent": -3}, "max_concurrent"),
        (["a"], {"max_concurrent": 2.5}, "max_concurrent"),
        (["a"], {"max_concurrent": True}, "max_concurrent"),
        (["a"], {"timeout": 0}, "timeout must be a number of seconds greater than 0"),
        (["a"], {"timeout": -1.5}, "timeout"),
        (["a"], {"timeout": float("nan")}, "timeout"),
        (["a"], {"timeout": "soon"}, "timeout"),
        (["a"], {"retry": 3}, "retry must be a Retry or None, not 3"),
        (["a"], {"params": ["temperature"]}, "params must be a dict"),
        (["a"], {"on_progress": "bar"}, "on_progress must be a function"),
        (["a"], {"on_event": 5}, "on_event must be a function"),
    ],
)
def test_bad_arguments_are_clear_errors(
    batch: Batch, prompts: Any, options: dict[str, Any], why: str
) -> None:
    """Invalid arguments are refused before any call, with an error that says what is valid."""
    lm = Local()
    with pytest.raises(InputError, match=why):
        batch(prompts, lm, **options)
    assert lm.requests == []


NAMES = "allm_batch allm_batch_iter allm_batch_records aparallel_query llm_batch llm_batch_iter llm_batch_records parallel_query".split()
OPTIONS = {
    "max_concurrent",
    "timeout",
    "show_progress",
    "on_progress",
    "dedupe",
    "cache",
    "params",
    "retry",
    "on_event",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_names_its_options(name: str) -> None:
    """`help` lists the same keyword-only options for all batch functions, and an unknown option is
    refused at the call.
    """
    function = getattr(rlm_integrations, name)
    parameters = inspect.signature(function).parameters
    assert (
        {each.name for each in parameters.values() if each.kind is each.KEYWORD_ONLY}
        == OPTIONS
        == set(BatchOptions.__annotations__)
    )
    assert {each.name: each.default for each in parameters.values()} | {"llm": 0} == {
        **{
            each: value.default
            for each, value in inspect.signature(allm_batch).parameters.items()
            if each in OPTIONS
        },
        **{
            each.name: each.empty
            for each in parameters.values()
            if each.kind is not each.KEYWORD_ONLY
        },
        "llm": 0,
    }
    for mistyped in ({"max_concurent": 50}, {"retires": 3}):
        with pytest.raises(
            TypeError, match=f"unexpected keyword argument '{next(iter(mistyped))}'"
        ):
            function(["about {chunk}"], "offline", **mistyped)


def test_signatures_of_sync_forms() -> None:
    """The sync form of an async generator has the return type of an iterator, and its own
    docstring.
    """
    assert inspect.signature(llm_batch_iter).return_annotation == Iterator[tuple[int, str]]
    assert inspect.signature(llm_batch).return_annotation == list[str]
    assert all(
        "reply" in (getattr(rlm_integrations, name).__doc__ or "")
        or "replies" in getattr(rlm_integrations, name).__doc__
        for name in NAMES
    )


def test_records_have_usage_and_cost() -> None:
    """`llm_batch_records` returns each call's tokens and cost; the cost of a model without a known
    price is None, never zero.
    """

    class Unpriced:
        name, context_window = "a-model-of-our-own", None

        async def complete(self, request: Request) -> Completion:
            return Completion(f"re: {request.messages[0].content}", Usage(3, 2), self.name)

    records = llm_batch_records(["a", 5, "b"], Unpriced())
    assert [record.reply for record in records[::2]] == ["re: a", "re: b"]
    assert isinstance(records[1].reply, LLMError)
    assert [(record.usage, record.cost) for record in records[::2]] == [(Usage(3, 2), None)] * 2
    (record,) = llm_batch_records(["What is it?\n\nIt is a dam."], "offline")
    assert record.usage is not None
    assert record.cost == 0.0


def test_an_invalid_model_is_a_clear_error(batch: Batch) -> None:
    """A model that cannot be resolved is a clear error."""
    with pytest.raises(InputError, match="a model is"):
        batch(["a"], 5)


def test_the_model_may_be_a_name() -> None:
    """A model can be given by name: `offline` answers without a network."""
    [reply] = llm_batch(["hello"], "offline")
    assert isinstance(reply, str)
    assert not isinstance(reply, LLMError)


def test_context_variables_reach_the_model_and_the_generator() -> None:
    """Models and generators see the caller's context variables, with the sync API too."""
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")
    assert (
        llm_batch(
            (variable.get() for _ in range(2)), Local(act=lambda prompt: prompt + variable.get())
        )
        == ["minemine"] * 2
    )


TEMPLATE = 'Answer in JSON like {"found": [{}]}, {0}, {{chunk}}. Text: {chunk}'


@pytest.mark.parametrize(
    "api",
    [parallel_query, lambda *args, **options: asyncio.run(aparallel_query(*args, **options))],
    ids=["sync", "async"],
)
def test_parallel_query_replaces_the_literal_only(api: Batch) -> None:
    """Only {chunk} in the template is replaced, everywhere; other braces, and {chunk} inside a
    chunk, stay.
    """
    chunks = ["{chunk}", "{0}", "}{", "100 %s", "\\1 \\g<0>"]
    assert api(TEMPLATE, chunks, Local()) == [
        "re: " + TEMPLATE.replace("{chunk}", chunk) for chunk in chunks
    ]


def test_parallel_query_over_a_generator_with_a_bad_chunk() -> None:
    """Chunks are pulled like prompts; a chunk that is not a string fails alone."""
    replies = parallel_query("{chunk}!", iter(["a", 3, "b"]), Local())  # type: ignore[list-item] - that is what is tested
    assert [replies[0], replies[2]] == ["re: a!", "re: b!"]
    assert replies[1] == LLMError("input", "a chunk must be a string, not 3")


@pytest.mark.parametrize("template", ["no place for it", "{ chunk }", "", None])
def test_a_template_without_a_place_for_the_chunk(template: Any) -> None:
    """A template without {chunk} is an error before any call."""
    lm = Local()
    with pytest.raises(InputError, match=r"with \{chunk\} where each chunk goes"):
        parallel_query(template, ["a"], lm)
    assert lm.requests == []
