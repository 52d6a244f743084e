"""The bytes of answers: plain functions over plain data."""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.standin.settings import Ask, Fault, Reply, Script, Usage

CREATED = 1_700_000_000  # fixed, so that answers are the same at every run
PHRASES = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    411: "Length Required",
    429: "Too Many Requests",
}
PHRASES |= {500: "Internal Server Error", 503: "Service Unavailable"}
# Kind of fault: status, `error.type`, `error.code`, `error.message`.
ERRORS = {
    "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached"),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
    "server": (500, "server_error", None, "The server had an error"),
    "unavailable": (503, "server_error", None, "The engine is overloaded"),
    "auth": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "echo_key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "bad_request": (400, "invalid_request_error", None, "Invalid value"),
    "context_length": (400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 8192 tokens"),
    "not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist"),
    "error_body": (200, "server_error", None, "The upstream provider failed"),
}
TOOL_CALL = ("look_up", {"key": 1})  # of the fault


def answer_to(prompt: str) -> str:
    """The answer that only this prompt gets."""
    return f"answer {hashlib.sha256(prompt.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def reply_to(ask: Ask, script: Script | None) -> Reply:
    """What the script of this model says, or the default answer."""
    if script is None:
        return Reply(answer_to(ask.prompt))
    if isinstance(script, str):
        module, _, name = script.partition(":")
        script = getattr(importlib.import_module(module), name)
    if callable(script):
        reply = script(ask)
    elif ask.turn < len(script):
        reply = script[ask.turn]
    else:
        reply = f"[the script of {ask.model!r} has no reply {ask.turn}]"
    return reply if isinstance(reply, Reply) else Reply(reply)


def usage_of(ask: Ask, reply: Reply) -> dict[str, Any]:
    """Token counts in the wire's form."""
    said = reply.usage
    if said is None:
        said = Usage(
            input=sum(len(str(m.get("content") or "")) for m in ask.body["messages"]) // 4 + 1, output=len(reply.text or "") // 4 + 1
        )
    return {
        "prompt_tokens": said.input,
        "completion_tokens": said.output,
        "total_tokens": said.input + said.output,
        "prompt_tokens_details": {"cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.reasoning},
    }


def faulty(reply: Reply, kind: str | None) -> Reply:
    """The reply as a fault of this kind leaves it."""
    match kind:
        case "null_content" | "tool_calls":
            return Reply(None, "tool_calls", tool_calls=(TOOL_CALL,)) if kind == "tool_calls" else Reply(None)
        case "content_filter":
            return Reply(None, "content_filter")
        case "refusal":
            return Reply(None, refusal="I cannot help with that.")
        case "length":
            return Reply((reply.text or "")[:6], "length")
        case _:
            return reply


def calls_of(ask: Ask, reply: Reply) -> list[dict[str, Any]]:
    """The tool calls of a reply in the wire's form."""
    return [
        {"id": f"call_{ask.number}_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(reply.tool_calls)
    ]


def completion(ask: Ask, reply: Reply, kind: str | None) -> dict[str, Any]:
    """The body of a plain answer."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = calls_of(ask, reply)
    body = {
        "id": f"chatcmpl-{ask.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": ask.model,
        "choices": []
        if kind == "empty_choices"
        else [{"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}],
    }
    return body if kind == "no_usage" else body | {"usage": usage_of(ask, reply)}


def events(ask: Ask, reply: Reply, kind: str | None, piece: int) -> Iterator[bytes]:
    """The events of a streamed answer, one by one."""

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {"id": f"chatcmpl-{ask.number}", "object": "chat.completion.chunk", "created": CREATED, "model": ask.model}
        return b"data: " + json.dumps(head | {"choices": choices} | more).encode() + b"\n\n"

    def delta(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return event([] if kind == "empty_choices" else [{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    yield delta({"role": "assistant", "content": ""})
    if kind == "error_body":
        yield b"data: " + json.dumps(error_of(kind)).encode() + b"\n\n"
        return
    text = reply.text or ""
    for at in range(0, len(text), piece):
        yield delta({"content": text[at : at + piece]})
        if kind == "truncated":
            return
    if reply.refusal is not None:
        yield delta({"refusal": reply.refusal})
    if reply.tool_calls:
        yield delta({"tool_calls": [{"index": number, **call} for number, call in enumerate(calls_of(ask, reply))]})
    yield delta({}, reply.finish_reason)
    if kind != "no_usage" and (ask.body.get("stream_options") or {}).get("include_usage"):
        yield event([], usage=usage_of(ask, reply))
    yield b"data: [DONE]\n\n"


def error_of(kind: str, message: str = "") -> dict[str, Any]:
    """The body of an error."""
    _, type_, code, default = ERRORS[kind]
    return {"error": {"message": message or default, "type": type_, "param": None, "code": code}}


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The start of a response, up to its body."""
    lines = [f"HTTP/1.1 {status} {PHRASES[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def retry_after(fault: Fault) -> dict[str, str]:
    """The headers that ask the client to wait."""
    if fault.retry_after is None:
        return {}
    return {"retry-after": fault.retry_after if isinstance(fault.retry_after, str) else f"{fault.retry_after:g}"}
