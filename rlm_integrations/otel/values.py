"""The values of attributes: what they may contain, and how long they are."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from rlm_integrations.records import Message

Attributes = dict[str, str | int | float | bool]

MAX_CONTENT_CHARS: Final = 100_000  # of one exported message, code or output
_MAX_NAME_CHARS = 200
# The conventions' names of providers, by how their models' names begin
_PROVIDERS = {
    "claude": "anthropic",
    "command": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gen_ai",
    "gpt": "openai",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "offline": "rlm_integrations",
}


def provider_name(model: str, given: str | Mapping[str, str] | None) -> str:
    """The name of a model's provider: the given one, or as the model's name begins."""
    if isinstance(given, str):
        return given
    own = None if given is None else given.get(model)
    known = (name for begin, name in _PROVIDERS.items() if model.startswith(begin))
    return own or next(known, "_OTHER")


def name_value(name: str) -> str:
    """A name that exporters can encode: servers may send half of a surrogate pair."""
    return name[:_MAX_NAME_CHARS].encode(errors="replace").decode()


def tool_attributes(name: str, kind: str) -> Attributes:
    """The attributes of a tool's execution."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": kind,
    }


def content_value(content: str | Mapping[str, str]) -> str:
    """Code, output or arguments as JSON, without the end of a long text."""
    if isinstance(content, str):
        return json.dumps(_cut(content))
    return json.dumps({name: _cut(text) for name, text in content.items()})


def messages_value(messages: Iterable[Message], finish_reason: str | None = None) -> str:
    """Messages as JSON in the form of the conventions."""
    finish = {"finish_reason": finish_reason} if finish_reason else {}
    plain = [
        {
            "role": each.role,
            "parts": [{"type": "text", "content": _cut(each.content)}],
            **finish,
        }
        for each in messages
    ]
    return json.dumps(plain)


def _cut(text: str) -> str:
    left_out = len(text) - MAX_CONTENT_CHARS
    return text if left_out <= 0 else f"{text[:MAX_CONTENT_CHARS]}… {left_out} characters left out"
