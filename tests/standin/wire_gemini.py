"""Google's Gemini: `generateContent` and `streamGenerateContent`."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import SplitResult, unquote

from tests.standin.settings import Ask, Fault, Reply
from tests.standin.wire import Wire, counts_of, in_openais_words

METHOD = re.compile(
    r"/v1\w*/models/(?P<model>[^/]+):(?P<method>generateContent|streamGenerateContent)"
)
CARD = re.compile(r"/v1\w+/models/(?P<model>[^/:]+)")  # under v1 this address is OpenAI's
BAD_KEY = "API key not valid. Please pass a valid API key."
# Kind of fault: `error.code`, which is the status, `error.status`, `error.message`. A wrong key is
# an invalid argument here.
ERRORS = {
    "rate_limit": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "server": (500, "INTERNAL", "An internal error has occurred."),
    "unavailable": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "auth": (400, "INVALID_ARGUMENT", BAD_KEY),
    "echo_key": (400, "INVALID_ARGUMENT", BAD_KEY),
    "bad_request": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "context_length": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "not_found": (
        404,
        "NOT_FOUND",
        "The model is not found for API version v1beta, or is not supported for generateContent.",
    ),
    "error_body": (200, "INTERNAL", "The upstream provider failed"),
}
LACKS = frozenset({"quota"})  # it is reported like a rate limit
FINISH_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}


def read(target: SplitResult, body: Any) -> tuple[str, bool, Mapping[str, Any]]:
    """Model and stream are in the address; the system text is separate from the contents, and texts
    are parts.
    """
    found = METHOD.fullmatch(target.path)
    if found is None:
        raise ValueError(f"no model and method in {target.path!r}")
    model, stream = unquote(found["model"]), found["method"] == "streamGenerateContent"
    if stream and target.query != "alt=sse":
        raise ValueError("a stream is spoken here with alt=sse alone")
    messages = [
        ({"model": "assistant"}.get(each["role"], each["role"]), _text(each))
        for each in body["contents"]
    ]
    system, bound = (
        _text(body.get("systemInstruction") or {"parts": []}),
        (body.get("generationConfig") or {}).get("maxOutputTokens"),
    )
    return model, stream, in_openais_words(model, system, messages, stream=stream, bound=bound)


def _text(content: Any) -> str:
    return "".join(part.get("text", "") for part in content["parts"] if not part.get("thought"))


def key(headers: Mapping[str, str]) -> str | None:
    """The key in Google's own header."""
    return headers.get("x-goog-api-key")


def error(fault: Fault, message: str = "") -> tuple[int, dict[str, str], dict[str, Any]]:
    """An error object. The time to wait is in its details, not in a header."""
    code, status, default = ERRORS[fault.kind]
    told: dict[str, Any] = {"code": code, "message": message or default, "status": status}
    if default == BAD_KEY:
        told["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
        ]
    if fault.retry_after is not None:
        told["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{fault.retry_after}s",
            }
        ]
    return code, {}, {"error": told}


def card(model: str) -> dict[str, Any]:
    """The card of a model."""
    methods = ["generateContent", "countTokens"]
    limits = {"inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536}
    return {
        "name": f"models/{model}",
        "version": "001",
        "displayName": model,
        **limits,
        "supportedGenerationMethods": methods,
    }


def _body(ask: Ask, reply: Reply, kind: str | None, **fields: Any) -> dict[str, Any]:
    said = counts_of(ask, reply)
    counts = {"promptTokenCount": said.input, "candidatesTokenCount": said.output - said.reasoning}
    counts |= {"totalTokenCount": said.input + said.output}
    counts |= {"cachedContentTokenCount": said.cached} if said.cached else {}
    counts |= {"thoughtsTokenCount": said.reasoning} if said.reasoning else {}
    usage = {} if kind == "no_usage" else {"usageMetadata": counts}
    return {**fields, **usage, "modelVersion": ask.model, "responseId": f"response-{ask.number}"}


def _blocked(reply: Reply, kind: str | None) -> dict[str, Any] | None:
    """The field that replaces the candidates if the prompt is refused."""
    if reply.refusal is not None:
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    return {} if kind == "empty_choices" else None


def _candidate(parts: list[dict[str, Any]], reply: Reply | None = None) -> dict[str, Any]:
    content = {"content": {"parts": parts, "role": "model"}} if parts else {}
    end = (
        {}
        if reply is None
        else {"finishReason": FINISH_REASONS.get(reply.finish_reason, reply.finish_reason)}
    )
    return {"candidates": [{**content, **end, "index": 0}]}


def completion(ask: Ask, reply: Reply, kind: str | None) -> dict[str, Any]:
    """A response with one candidate."""
    if (blocked := _blocked(reply, kind)) is not None:
        return _body(ask, reply, kind, **blocked)
    parts: list[dict[str, Any]] = [] if reply.text is None else [{"text": reply.text}]
    parts += [
        {"functionCall": {"name": name, "args": dict(arguments)}}
        for name, arguments in reply.tool_calls
    ]
    return _body(ask, reply, kind, **_candidate(parts, reply))


def events(ask: Ask, reply: Reply, kind: str | None, piece: int) -> Iterator[bytes]:
    """Responses, each with a part of the candidate; the last one ends it."""

    def event(body: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(body).encode() + b"\r\n\r\n"

    if kind == "error_body":
        yield event(error(Fault(kind))[2])
        return
    text = reply.text or ""
    for at in range(0, len(text), piece) if _blocked(reply, kind) is None else ():
        yield event(_body(ask, reply, kind, **_candidate([{"text": text[at : at + piece]}])))
        if kind == "truncated":
            return
    yield event(
        completion(
            ask,
            reply if reply.text is None else replace(reply, text="", usage=counts_of(ask, reply)),
            kind,
        )
    )


GEMINI = Wire("Gemini", read, key, ERRORS, LACKS, error, completion, events, opening=1)
