"""Models of LangChain and LlamaIndex that call a stand-in, and a script for a run's root model: for
tests of the adapters.
"""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest

from tests.standin import Ask, answer_to

HAS_LLAMA_INDEX = find_spec("llama_index") is not None
needs_llama_index = pytest.mark.skipif(
    not HAS_LLAMA_INDEX, reason="LlamaIndex's openai package needs openai 2"
)
# There `MessageParam` is a union, which LlamaIndex's Anthropic 0.12 tries to instantiate: no call
# reaches a socket.
HAS_ANTHROPIC_2 = int(version("anthropic").split(".")[0]) >= 2
needs_anthropic_1 = pytest.mark.skipif(
    HAS_ANTHROPIC_2, reason="LlamaIndex's Anthropic cannot call the SDK anthropic from 2.0 on"
)

KEY = "sk-secret-0123456789"
MODEL = "gpt-4o-mini"  # a name that LlamaIndex's OpenAI knows: it accepts no other
# For older ones LlamaIndex sends a temperature, which the SDK no longer accepts since 1.0
CLAUDE = "claude-sonnet-5"
GEMINI = "gemini-2.5-flash"
PAIR = ["ChatOpenAI", pytest.param("OpenAILike", marks=needs_llama_index)]
KINDS = [*PAIR, pytest.param("OpenAI", marks=needs_llama_index)]
# Classes for other APIs than OpenAI's.
PROVIDERS = [
    "ChatAnthropic",
    "ChatGoogleGenerativeAI",
    pytest.param("Anthropic", marks=[needs_llama_index, needs_anthropic_1]),
    pytest.param("GoogleGenAI", marks=needs_llama_index),
]
NAMES = {
    "ChatAnthropic": CLAUDE,
    "Anthropic": CLAUDE,
    "ChatGoogleGenerativeAI": GEMINI,
    "GoogleGenAI": GEMINI,
}


_made: list[Any] = []


def foreign(kind: str, base_url: str, **options: Any) -> Any:
    """A model of this class that calls the stand-in at this `base_url`, until the end of the test.

    Args:
        kind: The name of the class.
        base_url: The stand-in's address, for any provider's API.
        options: Options of the class; all accept `timeout` in seconds and `max_retries`.
    """
    _made.append(_foreign(kind, base_url, **options))
    return _made[-1]


def close_all() -> None:
    """Close the synchronous clients that belong to one model: if a failed test's traceback keeps
    one, closing it later would warn.

    LangChain's models share theirs by address, even with later tests; Google's have one each.
    """
    while _made:
        model = _made.pop()
        held = {**vars(model), **(getattr(model, "__pydantic_private__", None) or {})}
        client = held.get(
            "client" if type(model).__name__ == "ChatGoogleGenerativeAI" else "_client"
        )
        if client is not None and type(model).__name__ != "ChatAnthropic":
            client.close()


def _foreign(kind: str, base_url: str, **options: Any) -> Any:
    root = base_url.removesuffix("/v1")  # Only OpenAI's clients take the version in the address
    if kind == "ChatOpenAI":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY, **options)
    if kind == "OpenAILike":
        from llama_index.llms.openai_like import OpenAILike

        return OpenAILike(
            model=MODEL, api_base=base_url, api_key=KEY, **{"is_chat_model": True, **options}
        )
    if kind == "OpenAI":
        from llama_index.llms.openai import OpenAI

        return OpenAI(model=MODEL, api_base=base_url, api_key=KEY, **options)
    if kind == "ChatAnthropic":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(**{"model": CLAUDE, "base_url": root, "api_key": KEY, **options})
    if kind == "ChatGoogleGenerativeAI":
        from langchain_google_genai import ChatGoogleGenerativeAI

        return ChatGoogleGenerativeAI(
            **{"model": GEMINI, "base_url": root, "api_key": KEY, **options}
        )
    if kind == "Anthropic":
        from llama_index.llms.anthropic import Anthropic

        return Anthropic(**{"model": CLAUDE, "base_url": root, "api_key": KEY, **options})
    if kind == "GoogleGenAI":
        from llama_index.llms.google_genai import GoogleGenAI

        # By default the SDK itself retries lost connections, after up to ten seconds.
        http: dict[str, Any] = {"base_url": root, "retry_options": {"attempts": 1}}
        if (timeout := options.pop("timeout", None)) is not None:
            http["timeout"] = int(1000 * timeout)
        return GoogleGenAI(**{"model": GEMINI, "http_options": http, "api_key": KEY, **options})
    raise ValueError(f"no model of this kind: {kind!r}")


PROMPTS = [f"p{number}" for number in range(10)]
ANSWERS = [answer_to(prompt) for prompt in PROMPTS]

PROGRAM = """```repl
FINAL("|".join(llm_batch([f"q{number}" for number in range(4)])))
```"""
CALLS = 5  # of a run whose root writes that program
ANSWER = "|".join(answer_to(f"q{number}") for number in range(4))


def root_or_sub(ask: Ask) -> str:
    """The script of a model that is both root and sub-model of a run: only a root has a system
    message.
    """
    return PROGRAM if ask.body["messages"][0]["role"] == "system" else answer_to(ask.prompt)


SCRIPTS = dict.fromkeys((MODEL, CLAUDE, GEMINI), root_or_sub)
