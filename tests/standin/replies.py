"""The replies, for all APIs: plain functions over plain data."""

import hashlib
import importlib
from collections.abc import Mapping

from tests.standin.settings import Ask, Reply, Script

PHRASES = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    404: "Not Found",
    411: "Length Required",
    429: "Too Many Requests",
}
PHRASES |= {500: "Internal Server Error", 503: "Service Unavailable", 529: "Overloaded"}
TOOL_CALL = ("look_up", {"key": 1})  # of the fault


def answer_to(prompt: str) -> str:
    """The answer that is unique to this prompt."""
    return f"answer {hashlib.sha256(prompt.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def reply_to(ask: Ask, script: Script | None) -> Reply:
    """The reply of this model's script, or the default answer."""
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


def faulty(reply: Reply, kind: str | None) -> Reply:
    """The reply changed by a fault of this kind."""
    match kind:
        case "null_content" | "tool_calls":
            return (
                Reply(None, "tool_calls", tool_calls=(TOOL_CALL,))
                if kind == "tool_calls"
                else Reply(None)
            )
        case "content_filter":
            return Reply(None, "content_filter")
        case "refusal":
            return Reply(None, refusal="I cannot help with that.")
        case "length":
            return Reply((reply.text or "")[:6], "length")
        case _:
            return reply


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The start of a response, up to its body."""
    lines = [
        f"HTTP/1.1 {status} {PHRASES[status]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
