"""Anthropic's Messages."""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult

from tests.standin.settings import Ask, Fault, Reply
from tests.standin.wire import Wire, bearer, counts_of, in_openais_words, retry_after

# Kind of fault: status, `error.type`, `error.message`.
ERRORS = {
    "rate_limit": (
        429,
        "rate_limit_error",
        "This request would exceed the rate limit for your organization",
    ),
    "quota": (402, "billing_error", "Your credit balance is too low to access the API"),
    "server": (500, "api_error", "Internal server error"),
    "unavailable": (529, "overloaded_error", "Overloaded"),
    "auth": (401, "authentication_error", "invalid x-api-key"),
    "echo_key": (401, "authentication_error", "invalid x-api-key"),
    "bad_request": (400, "invalid_request_error", "messages: at least one is not valid"),
    "context_length": (
        400,
        "invalid_request_error",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ),
    "not_found": (404, "not_found_error", "model: no such model"),
    "error_body": (200, "api_error", "The upstream provider failed"),
}
# A message has no choices, usage is always sent, and a filter is reported like a refusal.
LACKS = frozenset({"empty_choices", "no_usage", "content_filter"})
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def read(_: SplitResult, body: Any) -> tuple[str, bool, Mapping[str, Any]]:
    """The system text is separate from the messages, and texts may be blocks.

    A reply bound is required.
    """
    model, stream, bound = str(body["model"]), bool(body.get("stream")), int(body["max_tokens"])
    messages = [(message["role"], _text(message["content"])) for message in body["messages"]]
    return (
        model,
        stream,
        in_openais_words(
            model, _text(body.get("system") or ""), messages, stream=stream, bound=bound
        ),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block["type"] == "text")


def key(headers: Mapping[str, str]) -> str | None:
    """In a separate header, as in the first SDKs, or as for OpenAI, as in later ones."""
    return headers.get("x-api-key") or bearer(headers)


def error(fault: Fault, message: str = "") -> tuple[int, dict[str, str], dict[str, Any]]:
    """An error object within another object that says so."""
    status, type_, default = ERRORS[fault.kind]
    return (
        status,
        retry_after(fault),
        {
            "type": "error",
            "error": {"type": type_, "message": message or default},
            "request_id": "req_0",
        },
    )


def usage_of(ask: Ask, reply: Reply) -> dict[str, Any]:
    """Token counts. Cached tokens are not in `input_tokens`."""
    said = counts_of(ask, reply)
    return {
        "input_tokens": said.input - said.cached - said.written,
        "cache_creation_input_tokens": said.written,
        "cache_read_input_tokens": said.cached,
        "output_tokens": said.output,
        "output_tokens_details": {"thinking_tokens": said.reasoning},
    }


def _message(
    ask: Ask, blocks: list[dict[str, Any]], stop_reason: str | None, usage: dict[str, Any]
) -> dict[str, Any]:
    about = {"id": f"msg_{ask.number}", "type": "message", "role": "assistant", "model": ask.model}
    return {
        **about,
        "content": blocks,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop_reason(reply: Reply) -> str:
    return (
        "refusal"
        if reply.refusal is not None
        else STOP_REASONS.get(reply.finish_reason, reply.finish_reason)
    )


def _blocks(ask: Ask, reply: Reply) -> list[dict[str, Any]]:
    texts = [] if reply.text is None else [{"type": "text", "text": reply.text}]
    calls = [
        {
            "type": "tool_use",
            "id": f"toolu_{ask.number}_{number}",
            "name": name,
            "input": dict(arguments),
        }
        for number, (name, arguments) in enumerate(reply.tool_calls)
    ]
    return [*texts, *calls]


def completion(ask: Ask, reply: Reply, kind: str | None) -> dict[str, Any]:
    """A message."""
    return _message(ask, _blocks(ask, reply), _stop_reason(reply), usage_of(ask, reply))


def events(ask: Ask, reply: Reply, kind: str | None, piece: int) -> Iterator[bytes]:
    """Named events, from message_start to message_stop."""

    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()

    usage = usage_of(ask, reply)
    yield event("message_start", message=_message(ask, [], None, usage | {"output_tokens": 1}))
    if kind == "error_body":
        yield event("error", **error(Fault(kind))[2])
        return
    for index, block in enumerate(_blocks(ask, reply)):
        if block["type"] == "text":
            start, name, whole = {"type": "text", "text": ""}, "text", block["text"]
        else:
            start, name, whole = block | {"input": {}}, "partial_json", json.dumps(block["input"])
        opening = event("content_block_start", index=index, content_block=start)
        for at in range(0, len(whole), piece):
            delta = {
                "type": "text_delta" if name == "text" else "input_json_delta",
                name: whole[at : at + piece],
            }
            yield opening + event("content_block_delta", index=index, delta=delta)
            opening = b""
            if kind == "truncated":
                return
        yield opening + event("content_block_stop", index=index)
    yield event(
        "message_delta",
        delta={"stop_reason": _stop_reason(reply), "stop_sequence": None},
        usage=usage,
    )
    yield event("message_stop")


ANTHROPIC = Wire("Anthropic", read, key, ERRORS, LACKS, error, completion, events, opening=2)
