"""OpenAI's chat completions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult

from tests.standin.settings import Ask, Fault, Reply
from tests.standin.wire import Wire, bearer, counts_of, retry_after

CREATED = 1_700_000_000  # fixed, so that answers are the same in every run
# Kind of fault: status, `error.type`, `error.code`, `error.message`.
ERRORS = {
    "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached"),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
    "server": (500, "server_error", None, "The server had an error"),
    "unavailable": (503, "server_error", None, "The engine is overloaded"),
    "auth": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "echo_key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "bad_request": (400, "invalid_request_error", None, "Invalid value"),
    "context_length": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens",
    ),
    "not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist"),
    "error_body": (200, "server_error", None, "The upstream provider failed"),
}


def read(_: SplitResult, body: Any) -> tuple[str, bool, Mapping[str, Any]]:
    """The body itself."""
    return str(body["model"]), bool(body.get("stream")), body


def error(fault: Fault, message: str = "") -> tuple[int, dict[str, str], dict[str, Any]]:
    """An error object."""
    status, type_, code, default = ERRORS[fault.kind]
    return (
        status,
        retry_after(fault),
        {"error": {"message": message or default, "type": type_, "param": None, "code": code}},
    )


def usage_of(ask: Ask, reply: Reply) -> dict[str, Any]:
    """Token counts."""
    said = counts_of(ask, reply)
    return {
        "prompt_tokens": said.input,
        "completion_tokens": said.output,
        "total_tokens": said.input + said.output,
        "prompt_tokens_details": {"cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.reasoning},
    }


def _tool_calls(ask: Ask, reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{ask.number}_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(reply.tool_calls)
    ]


def completion(ask: Ask, reply: Reply, kind: str | None) -> dict[str, Any]:
    """A chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = _tool_calls(ask, reply)
    body = {
        "id": f"chatcmpl-{ask.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": ask.model,
        "choices": []
        if kind == "empty_choices"
        else [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
        ],
    }
    return body if kind == "no_usage" else body | {"usage": usage_of(ask, reply)}


def events(ask: Ask, reply: Reply, kind: str | None, piece: int) -> Iterator[bytes]:
    """Chunks, up to [DONE]."""

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {
            "id": f"chatcmpl-{ask.number}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": ask.model,
        }
        return b"data: " + json.dumps(head | {"choices": choices} | more).encode() + b"\n\n"

    def delta(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return event(
            []
            if kind == "empty_choices"
            else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        )

    yield delta({"role": "assistant", "content": ""})
    if kind == "error_body":
        yield b"data: " + json.dumps(error(Fault(kind))[2]).encode() + b"\n\n"
        return
    text = reply.text or ""
    for at in range(0, len(text), piece):
        yield delta({"content": text[at : at + piece]})
        if kind == "truncated":
            return
    if reply.refusal is not None:
        yield delta({"refusal": reply.refusal})
    if reply.tool_calls:
        yield delta(
            {
                "tool_calls": [
                    {"index": number, **call} for number, call in enumerate(_tool_calls(ask, reply))
                ]
            }
        )
    yield delta({}, reply.finish_reason)
    if kind != "no_usage" and (ask.body.get("stream_options") or {}).get("include_usage"):
        yield event([], usage=usage_of(ask, reply))
    yield b"data: [DONE]\n\n"


OPENAI = Wire("OpenAI", read, bearer, ERRORS, frozenset(), error, completion, events, opening=2)
