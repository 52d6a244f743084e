"""Each unusual reply has a defined meaning, over real sockets and with hand-written bodies."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._replies import Streamed, completion_of
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.openai import OpenAILM
from rlm_integrations.records import Completion, Usage
from tests.lm.conftest import request_of
from tests.standin import Fault, StandIn, answer_to

ODD = [
    ("null_content", "empty", True, "sent no content"),
    ("refusal", "refusal", False, "I cannot help with that."),
    ("content_filter", "refusal", False, "content filter"),
    ("tool_calls", "tool_calls", False, "remove `tools`"),
    ("empty_choices", "bad_response", True, ""),
    ("error_body", "server", True, "The upstream provider failed"),
]


@pytest.mark.parametrize("api", ["complete", "astream"])
@pytest.mark.parametrize(("fault", "kind", "retryable", "hint"), ODD)
async def test_a_reply_without_an_answer(
    server: StandIn, api: str, fault: Any, kind: str, retryable: bool, hint: str
) -> None:
    """No content, a refusal, tool calls and no choices are typed errors, the same for plain and
    streamed replies.
    """
    server.change(faults=[Fault(fault)])
    lm = OpenAILM("sub", base_url=server.base_url, api_key="sk-0123456789")
    with pytest.raises(ModelError) as caught:
        if api == "complete":
            await lm.complete(request_of("x"))
        else:
            [piece async for piece in lm.astream(request_of("x"))]
    assert (caught.value.type, caught.value.retryable) == (kind, retryable)
    assert hint in str(caught.value)
    assert "'sub'" in str(caught.value)


async def test_a_truncated_answer_is_an_answer(server: StandIn) -> None:
    """A truncated answer is returned, with the finish reason "length"."""
    server.change(faults=[Fault("length")])
    answer = await OpenAILM("sub", base_url=server.base_url, api_key="k").complete(request_of("x"))
    assert (answer.text, answer.finish_reason) == (answer_to("x")[:6], "length")


async def test_an_answer_without_counts(server: StandIn) -> None:
    """Without token counts, usage is None: unknown, not zero."""
    server.change(faults=[Fault("no_usage")])
    assert (
        await OpenAILM("sub", base_url=server.base_url, api_key="k").complete(request_of("x"))
    ).usage is None


def body(message: Any, finish_reason: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": message, "finish_reason": finish_reason}], **more}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (body({"content": ""}), Completion("", None, "m", "stop")),  # some questions have no answer
        (
            body({"content": "x", "tool_calls": [{}]}, "tool_calls"),
            Completion("x", None, "m", "tool_calls"),
        ),
        (body({"content": "x"}, "content_filter"), Completion("x", None, "m", "content_filter")),
        (body({"content": "x"}, None), Completion("x", None, "m", None)),
        (
            body(
                {
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "thinking"},
                        {"type": "text", "text": "b"},
                    ]
                }
            ),
            Completion("ab", None, "m", "stop"),
        ),
        ({"choices": [{"message": {"content": "x"}}]}, Completion("x", None, "asked", None)),
    ],
)
def test_unusual_answers(given: dict[str, Any], expected: Completion) -> None:
    """With an empty text, text beside tool calls, a list of parts, a missing finish reason or a
    missing model, the text is the answer.
    """
    assert completion_of(given, "asked") == expected


@pytest.mark.parametrize(
    ("given", "kind", "retryable"),
    [
        (body({"content": ""}, "length"), "empty", False),  # all tokens were used for thinking
        (body({"content": None}, "length"), "empty", False),
        (body({"content": None, "tool_calls": []}), "empty", True),
        (body({"content": "", "refusal": "no"}), "refusal", False),
        (body({"content": 5}), "bad_response", True),
        (body({"content": [{"text": "a"}]}), "bad_response", True),
        (body(None), "bad_response", True),
        ({"choices": None}, "bad_response", True),
        ({"choices": [None]}, "bad_response", True),
        ([], "bad_response", True),
        ("text", "bad_response", True),
        (None, "bad_response", True),
    ],
)
def test_unusual_answers_that_are_errors(given: Any, kind: str, retryable: bool) -> None:
    """Any JSON body results in an answer or a typed error."""
    with pytest.raises(ModelError) as caught:
        completion_of(given, "asked")
    assert (caught.value.type, caught.value.retryable) == (kind, retryable)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, Usage(3, 2)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": None,
                "completion_tokens_details": {},
            },
            Usage(3, 2),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": None},
            },
            Usage(3, 2),
        ),
        ({"prompt_tokens": 3}, None),
        ({"prompt_tokens": "3", "completion_tokens": 2}, None),
        ({"prompt_tokens": -1, "completion_tokens": 2}, None),
        ("many", None),
        (None, None),
    ],
)
def test_counts_are_whole_or_unknown(given: Any, expected: Usage | None) -> None:
    """Incomplete token counts are unknown: a budget must not treat them as small."""
    assert completion_of(body({"content": "x"}, usage=given), "m").usage == expected


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {}, optional={"content": st.text() | JSON, "refusal": JSON, "tool_calls": JSON}
)
EVENT = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"delta": MESSAGE | JSON, "finish_reason": JSON}) | JSON,
            max_size=2,
        )
    }
)
CHOICE = st.fixed_dictionaries({"message": MESSAGE | JSON}, optional={"finish_reason": JSON})
USAGE = st.fixed_dictionaries(
    {}, optional={"prompt_tokens": JSON, "completion_tokens": JSON, "prompt_tokens_details": JSON}
)
BODY = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE | JSON, max_size=2) | JSON},
    optional={"usage": USAGE | JSON, "model": JSON},
)


@settings(deadline=None)
@for_all(BODY | JSON)
def test_any_body_is_an_answer_or_a_typed_error(body: Any) -> None:
    """Any body of a provider results in an answer or a typed error."""
    with suppress(ModelError):
        assert_whole(completion_of(body, "m"))


@settings(deadline=None)
@for_all(st.lists(EVENT | JSON, max_size=4))
def test_any_stream_is_an_answer_or_a_typed_error(events: list[Any]) -> None:
    """The same for streams; each piece is a string."""
    streamed = Streamed("m")
    with suppress(ModelError):
        pieces = [streamed.add(event) for event in events]
        whole = streamed.completion()
        assert_whole(whole)
        assert whole.text == "".join(pieces)


def assert_whole(completion: Completion) -> None:
    assert isinstance(completion.text, str)
    assert isinstance(completion.model, str)
    assert completion.finish_reason is None or isinstance(completion.finish_reason, str)


@settings(deadline=None)
@for_all(
    st.none() | st.integers(400, 599),
    st.fixed_dictionaries({}, optional={"message": JSON, "code": JSON, "type": JSON}) | JSON,
)
def test_any_error_body_is_a_typed_error(status: int | None, body: Any) -> None:
    """Any body of an error status is a typed error."""
    assert isinstance(status_error(status, body, "m"), ModelError)
