"""Answers of a journal as JSON: every value that crossed the boundary is restored unchanged."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations import InputError, LLMError
from rlm_integrations.engine.answer_codec import decode_answer, encode_answer
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.journal import Answer, MemoryJournal
from rlm_integrations.records import LLMReply, SpanRef, StoreObject
from rlm_integrations.sandbox.wire import Opaque
from tests.engine.test_replay import SCRIPTS, Paid, recorded

CALL = CallId("r", 1, "lookup", "abc", 2, (3, 4))
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs too
SPANS = st.builds(SpanRef, TEXTS, st.integers(0, 9), st.integers(0, 9))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | SPANS
    | st.builds(LLMError, TEXTS, TEXTS, st.integers(0, 9))
    | st.builds(LLMReply, TEXTS, st.none() | TEXTS)
    | st.builds(Opaque, TEXTS, TEXTS)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.just("$int"), inner, max_size=3)
        | st.builds(
            StoreObject,
            id=TEXTS,
            type=TEXTS,
            description=TEXTS,
            content=inner,
            backrefs=st.lists(SPANS, max_size=2).map(tuple),
            parents=st.lists(TEXTS, max_size=2).map(tuple),
            tags=st.just(()),
            worker=TEXTS,
            seq=st.integers(0, 9),
            ts=st.floats(0, 9),
            links=st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
            invalid=st.none() | TEXTS,
        )
    ),
    max_leaves=8,
)


def shape(value: Any) -> Any:
    """A value with the types that `==` ignores, and with NaN equal to itself."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, dict):
        return dict, [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, StoreObject):
        return StoreObject, shape(value.content), repr(value.backrefs), value.id, value.links
    if isinstance(value, LLMReply):
        return LLMReply, str(value), value.finish_reason
    if isinstance(value, LLMError):
        return LLMError, value.type, value.message, value.retries
    return type(value), value


@given(value=VALUES)
def test_values_are_restored_unchanged(value: Any) -> None:
    """Numbers, strings with invalid Unicode, spans, objects, errors, and dicts with any keys are
    restored unchanged.
    """
    call, answer = decode_answer(encode_answer(CALL, Answer(value, error=("KeyError", "no"))))
    assert (call, answer.error) == (CALL, ("KeyError", "no"))
    assert shape(answer.value) == shape(value)


async def test_a_whole_journal_is_restored_unchanged() -> None:
    """Each answer is restored with its notes: of model calls, child runs, blocks, tools, quotes and
    the store.
    """
    journal = MemoryJournal()
    await recorded(journal, Paid(SCRIPTS))
    again = dict(decode_answer(encode_answer(*item)) for item in journal.answers.items())
    assert list(again) == list(journal.answers)
    for call, answer in journal.answers.items():
        assert again[call] == answer, call.path
    assert {type(answer.value).__name__ for answer in again.values()} >= {
        "ModelAnswer",
        "ChildAnswer",
        "BlockOutcome",
        "SpanRef",
        "str",
    }


GOOD = json.loads(encode_answer(CALL, Answer("value")))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda record: b"", "damaged"),
        (lambda record: b"[1]", "damaged"),
        (lambda record: {**record, "version": 2}, "version 2"),
        (lambda record: {**record, "kind": "other"}, "unknown kind 'other'"),
        (lambda record: {**record, "kind": "model"}, "must be a list"),
        (lambda record: {**record, "kind": "block", "value": {}}, "damaged"),
        (lambda record: {**record, "value": {"$none": 1}}, "damaged"),
        (lambda record: {**record, "value": {"$error": ["a"]}}, "damaged"),
        (lambda record: {**record, "notes": [{"note": "none"}]}, "damaged"),
        (lambda record: {**record, "call": [5, 1, "lookup", "abc", 2, [3]]}, "call.run must be"),
        (lambda record: {name: record[name] for name in record if name != "error"}, "damaged"),
    ],
)
def test_a_damaged_record_is_an_error_that_says_so(damage: Any, told: str) -> None:
    """Any damaged record raises a clear error, and no other exception."""
    damaged = damage(GOOD)
    encoded = damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode()
    with pytest.raises(InputError, match=told):
        decode_answer(encoded)
