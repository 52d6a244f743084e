"""A result as JSON, as a file and as a pickle; a damaged one is refused with the name of the
field.
"""

import copy
import hashlib
import importlib.metadata
import json
import math
import os
import pickle
import time
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from rlm_integrations import RLM, Budget, Limits, LLMError, Retry, RLMResult, SharedStore
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import (
    ContextError,
    IncompleteError,
    InputError,
    MissingExtraError,
    ModelError,
    QueryError,
    ReplayDivergedError,
    RLMError,
)
from rlm_integrations.result import encode_result
from rlm_integrations.run_setup import ModelNames, SourceInfo
from tests.engine.conftest import Scripted, code, final, run

TEXT = "One fish, two fish, red fish, blue fish. " * 50
SCRIPT = [
    code(
        "replies = llm_batch(['a', 5, context[:500]])",
        "note = store.create('note', 'a red fish', {'n': 1}, [cite('red fish')])",
        "store.create('note', 'another', 'x', parents=[note])",
        "part = recursive_lm('child?', context[:100])",
    ),
    code("1/0"),
    code("FINAL(replies[0], [cite('red fish'), 'no fish at all'])"),
]


@cache
def rich() -> RLMResult:
    """A result with all kinds of records: replies, an error in a slot, a child with turns, a store,
    citations.
    """
    root = Scripted(
        {"child?": [final("'by a child'"), "x"], "fish": SCRIPT},
        lambda request: f"re: {request.messages[-1].content[:1]}",
    )
    result = RLM(root, max_depth=2).completion("What fish?", TEXT)
    assert (result.stop_reason, result.dropped_citations, len(result.citations)) == ("final", 1, 1)
    calls = result.repl_history[0].subcalls
    assert (
        isinstance(calls[1].reply, LLMError)
        or any(isinstance(call.reply, LLMError) for call in calls)
        or len(calls) == 3
    )
    assert any(call.turns for call in calls)
    return result


# Files.


def test_load_returns_what_save_wrote(tmp_path: Path) -> None:
    """`load` returns what `save` wrote: every field, and the store with its objects; the file does
    not contain the document.
    """
    result = rich()
    result.save(tmp_path / "run.json")
    again = RLMResult.load(str(tmp_path / "run.json"))
    assert again == result
    assert again.store is not None
    assert again.store.get("root_000001") == result.store.get("root_000001")  # type: ignore[union-attr]
    assert again.to_dict() == result.to_dict()
    assert TEXT[:300] not in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize(
    "answer",
    ["half a pair \ud83d", [math.nan, LLMError("server", "no")], (1, {"a": date(2026, 1, 1)}), 1.5],
)
def test_storages_get_the_same_json(answer: Any) -> None:
    """The JSON that a storage keeps is that of `to_dict`, for any answer."""
    result = replace(rich(), answer=answer)
    assert json.loads(encode_result(result)) == json.loads(json.dumps(result.to_dict()))


async def test_a_loaded_result_without_a_store() -> None:
    """With `store_mode="none"` a loaded result has no store either."""
    result = await run(Scripted([final("1")]), store_mode="none")
    assert RLMResult.from_dict(result.to_dict()).store is None


# The description of the run.


class Fish(BaseModel):
    """A type of answers."""

    color: str


def count_fish(text: str) -> int:
    """How many fish there are."""
    return text.count("fish")


def test_the_record_describes_the_run(tmp_path: Path) -> None:
    """The record has question, documents, models, options, version and time, as plain JSON."""
    (tmp_path / "fish.txt").write_text(TEXT)
    before = time.time()
    result = RLM(
        Scripted([final("{'color': 'red'}")], name="big"),
        {"fast": Scripted(name="small"), "strong": Scripted(name="big")},
        max_iterations=7,
        budget=Budget(max_calls=30),
        limits=Limits(call_seconds=5.0),
        tools=[count_fish],
        output_type=Fish,
    ).completion("Which color?", [tmp_path / "fish.txt", Document("blue fish", "doc-7")])
    assert result.question == "Which color?"
    assert result.sources == (
        SourceInfo(
            name="context_0",
            length=len(TEXT),
            sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
            file="fish.txt",
        ),
        SourceInfo(
            name="context_1",
            length=9,
            sha256=hashlib.sha256(b"blue fish").hexdigest(),
            id="doc-7",
        ),
    )
    assert result.models == ModelNames(
        root="big", subs={"fast": "small", "strong": "big"}, default="fast"
    )
    options = dict(result.options)
    assert options.pop("budget")["max_calls"] == 30
    assert options.pop("limits")["call_seconds"] == 5.0
    assert options.pop("retry")["failures"] == Retry().failures
    assert options == {
        "max_iterations": 7,
        "max_depth": 1,
        "max_parallel_calls": 10,
        "store_mode": "auto",
        "instructions": None,
        "prompt": None,
        "structured": False,
        "on_incomplete": "partial",
        "require_coverage": None,
        "sandbox": "process",
        "tools": ["count_fish"],
        "output_type": "Fish",
        "cache": False,
        "store": None,
    }
    assert result.version == importlib.metadata.version("rlm-integrations")
    assert result.started is not None
    assert before <= result.started <= time.time()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(None, None), (str, "str"), (list[int], "list[int]"), (int | None, "int | None")],
)
async def test_the_type_of_an_answer_is_recorded_by_name(kind: Any, name: str | None) -> None:
    """`output_type` is recorded by its name."""
    result = await run(Scripted([final("[1]")], name="r"), output_type=kind, max_iterations=1)
    assert result.options["output_type"] == name


async def test_the_root_calls_are_recorded_apart_from_their_blocks() -> None:
    """An iteration has the answering model, its wait and the arrival of its reply; an execution has
    its start.
    """
    result = await run(Scripted([code("print(1)", "1/0"), final("1")], name="root-model"))
    for turn in result.trajectory:
        assert (turn.model, turn.retries) == ("root-model", 0)
        assert turn.wait >= 0
        began = [execution.start for execution in turn.executions]
        assert [turn.start, turn.call_end, *began, turn.end] == sorted(
            [turn.start, turn.call_end, *began, turn.end]
        )
        assert began
        assert turn.call_end < turn.end


def test_a_record_without_the_newer_fields_is_read() -> None:
    """A file of an earlier version loads, with the defaults of newer fields."""
    plain = rich().to_dict()
    for name in ("question", "sources", "models", "options", "version", "started"):
        del plain[name]
    for turn in plain["trajectory"]:
        for name in ("model", "wait", "retries", "call_end"):
            del turn[name]
        for execution in turn["executions"]:
            del execution["start"]
    again = RLMResult.from_dict(plain)
    assert (again.question, again.sources, again.models) == ("", (), ModelNames())
    assert (again.options, again.version, again.started) == ({}, "", None)
    assert (again.trajectory[0].model, again.trajectory[0].call_end) == ("", 0.0)
    assert again.trajectory[0].executions[0].start == 0.0


def test_many_documents_are_listed_apart_from_the_event_loop() -> None:
    """The record of a context with more than a thousand documents lists all of them."""
    result = RLM(Scripted([final("1")])).completion("?", ["fish"] * 1_001)
    assert [each.name for each in result.sources] == [f"context_{n}" for n in range(1_001)]


@dataclass
class Document:
    """A document like LangChain's."""

    page_content: str
    id: str
    metadata: dict[str, Any] = field(default_factory=dict)


# Damaged and unwritable files.


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the old file stays, and no other file is left."""
    path = tmp_path / "run.json"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        rich().save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        rich().save(tmp_path / "nowhere" / "run.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a saved result"),
        (b"[1, 2", "is not a saved result"),
        (b"\xff\xfe\x00", "is not a saved result"),
        (b"[" * 100_000, "is not a saved result"),
        (b"[]", "a result of schema 1 is needed, but this is not a saved result"),
        (b'{"schema": 99}', "but this is of schema 99: read it with the version that wrote it"),
        (b'{"schema": true}', "but this is not a saved result"),
        (b'{"schema": 1}', "answer is missing"),
        (
            b'{"schema": 1, "answer": 1, "citations": [{"source": 5}]}',
            r"citations\[0\].source must be a string, not a value of type int",
        ),
        (
            b'{"schema": 1, "answer": 1, "trajectory": [{"iteration": 1, "reply": ""}, {"iteration": 2}]}',
            r"trajectory\[1\].reply is missing",
        ),
        (
            b'{"schema": 1, "answer": 1, "layers": {"seccomp": 5}}',
            r"layers\['seccomp'\] must be a string",
        ),
        (b'{"schema": 1, "answer": 1, "iterations": true}', "iterations must be an integer"),
        (b'{"schema": 1, "answer": 1, "elapsed": 1e999}', "elapsed must be a finite number"),
        (
            b'{"schema": 1, "answer": 1, "stop_reason": "bored"}',
            "stop_reason must be one of 'final'",
        ),
        (
            b'{"schema": 1, "answer": 1, "spent": {"by_model": {}, "by_depth": {"-1": {}}}}',
            "spent.by_depth: key '-1' must be a depth",
        ),
        (
            b'{"schema": 1, "answer": 1, "colour": "red"}',
            "unknown field 'colour': a later version may have written it",
        ),
        (b'{"schema": 1, "answer": 1, "store": {"events": []}}', "store must be an object with"),
    ],
)
def test_other_and_damaged_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The error is an `InputError` that names the file and the field."""
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        RLMResult.load(path)
    assert str(path) in str(caught.value)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**400),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(
        st.sampled_from(["error", "type", "source", "0"]),
        st.one_of(st.integers(), st.text(max_size=3)),
        max_size=2,
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a JSON value, itself included."""
    items: list[tuple[Any, Any]] = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@pytest.mark.exhaustive
@settings(
    suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=400, derandomize=True
)
@given(st.data())
def test_damaged_records_are_refused_or_work(data: st.DataObject) -> None:
    """For any changed or missing value, `from_dict` raises `InputError`, or returns a result whose
    every part can be used.
    """
    plain = json.loads(json.dumps(rich().to_dict()))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(plain)[1:]))
        holder = plain
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(JUNK)
        else:
            del holder[path[-1]]
    try:
        result = RLMResult.from_dict(plain)
    except InputError as error:
        assert str(error)
        return
    assert len(repr(result)) < 2_000
    assert str(result)
    hash(result)
    json.dumps(result.to_dict())
    assert result.spent.total.calls + len(result.usage) + len(result.repl_history) >= 0
    pickle.loads(pickle.dumps(result))


# Answers.


class Dam(BaseModel):
    name: str
    height: float


@dataclass
class Place:
    town: str


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("output_type", "value", "saved"),
    [
        (Dam, "{'name': 'R', 'height': 1.5}", {"name": "R", "height": 1.5}),
        (Place, "{'town': 'R'}", {"town": "R"}),
        (list[Place], "[{'town': 'R'}]", [{"town": "R"}]),
        (int | None, "None", None),
        (Colour, "'red'", "red"),
        (dict[str, date], "{'a': '2026-11-30'}", {"a": "2026-11-30"}),
        (timedelta, "'P1DT2S'", "P1DT2S"),
        (bytes, "'abc'", "abc"),
        (set[int], "[1]", [1]),
        (Decimal, "'1.50'", "1.50"),
        (float, "float('nan')", "NaN"),
        (
            dict[str, float],
            "{'a': float('inf'), 'b': -float('inf')}",
            {"a": "Infinity", "b": "-Infinity"},
        ),
        (Dam, "{'name': 'R', 'height': float('nan')}", {"name": "R", "height": "NaN"}),
    ],
)
async def test_typed_answers_are_saved_as_plain_json(
    output_type: Any, value: str, saved: object, tmp_path: Path
) -> None:
    """The file is standard JSON; the answer is loaded as plain JSON, which the type validates."""
    result = await run(Scripted([final(value)]), output_type=output_type)
    assert result.stop_reason == "final"
    result.save(tmp_path / "run.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    again = RLMResult.load(tmp_path / "run.json")
    assert again.answer == saved
    if "NaN" not in str(saved):
        assert TypeAdapter(output_type).validate_python(again.answer) == result.answer
    elif output_type is float:
        assert math.isnan(float(again.answer))


# Objects.


def test_a_result_can_be_pickled_and_copied() -> None:
    """The copy is equal, with its costs and its store."""
    result = rich()
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert again == result
        assert hash(again) == hash(result)
        assert (again.cost, again.usage) == (result.cost, result.usage)
        assert again.store.get("root_000002").parents == ("root_000001",)
    assert len({*result.citations, *result.citations}) == 1


def test_a_copied_store_is_independent() -> None:
    """A copy has the document, and its writes do not change the original; a pickle has no
    document.
    """
    with Corpus.build("a red fish") as corpus:
        store = SharedStore(corpus)
        store.worker("w").create("note", "d", 1, [{"source": "context_0", "start": 2, "end": 5}])
        for again in (copy.copy(store), copy.deepcopy(store)):
            assert again.trace("w_000001")[0]["spans"][0]["text"] == "red"
            assert again.worker("w").create("note", "d", 2) == "w_000002"
        pickled = pickle.loads(pickle.dumps(store))
        assert pickled.trace("w_000001")[0]["spans"][0]["text"] is None
        assert pickled.worker("w").create("note", "d", 2) == "w_000002"
        for make in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="pickle the SharedStore"):
                make(store.worker("w"))
        assert len(store) == 1


def test_the_repr_of_a_result_is_short() -> None:
    """`repr` is one short line, `print` shows the answer, its citations and the stop reason."""
    result = rich()
    assert repr(result) == (
        f"RLMResult(answer='re: a', stop_reason='final', iterations=3, total_calls={result.total_calls}, citations=1, "
        f"run_id={result.run_id!r})"
    )
    lines = str(result).splitlines()
    assert lines[0] == "re: a"
    assert lines[1] == "[1] context_0[20:28] 'red fish'"
    assert lines[2].startswith(f"(final; 3 turns, {result.total_calls} calls, ")
    long = RLMResult(
        answer="x" * 10**6,
        citations=result.citations * 50,
        error="y" * 10**6,
        stop_reason="model_error",
    )
    assert len(repr(long)) < 500
    assert len(str(long)) < 4_000
    assert "40 more citations" in str(long)
    assert len(repr(RLMResult(answer=["x" * 10**6]))) < 500


# The document.


def test_with_document_of_a_store(tmp_path: Path) -> None:
    """After the run, the spans of findings have no text until the store gets its document again;
    another document is refused.
    """
    result = rich()
    store = result.store
    assert store is not None
    assert store.trace("root_000002")[1]["spans"][0]["text"] is None
    result.save(tmp_path / "run.json")
    loaded = RLMResult.load(tmp_path / "run.json").store
    assert loaded is not None
    for each in (store, loaded):
        found = each.with_document(TEXT).trace("root_000002")
        assert [span["text"] for step in found for span in step["spans"]] == ["red fish"]
    with pytest.raises(InputError, match="this is not the document of the run"):
        store.with_document(TEXT.upper())
    with pytest.raises(InputError, match="no span can end at 28"):
        loaded.with_document("short")
    with pytest.raises(ContextError, match="the context is None"):
        store.with_document(None)


def test_every_error_can_be_pickled() -> None:
    """An error has the same message and attributes in another process."""
    errors: list[RLMError] = [
        ModelError("slow down", type="rate_limit", retry_after=2.0),
        QueryError("bad", column=3),
        IncompleteError("no answer", result=rich()),
        MissingExtraError("a feature", "ray"),
        ReplayDivergedError("r.b1/q0"),
    ]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
        assert again.__dict__.keys() == error.__dict__.keys()
    again = pickle.loads(pickle.dumps(errors[0]))
    assert (again.type, again.retry_after, again.sent) == ("rate_limit", 2.0, True)
