"""Models of LangChain and LlamaIndex over a stand-in, and a program for a run's root: for tests of the adapters."""

from importlib.util import find_spec
from typing import Any

import pytest

from tests.standin import Ask, answer_to

HAS_LLAMA_INDEX = find_spec("llama_index") is not None
needs_llama_index = pytest.mark.skipif(not HAS_LLAMA_INDEX, reason="LlamaIndex's openai package needs openai 2")

KEY = "sk-secret-0123456789"
MODEL = "gpt-4o-mini"  # a name that LlamaIndex's OpenAI knows: it takes no other
PAIR = ["ChatOpenAI", pytest.param("OpenAILike", marks=needs_llama_index)]
KINDS = [*PAIR, pytest.param("OpenAI", marks=needs_llama_index)]


_made: list[Any] = []


def foreign(kind: str, base_url: str, **options: Any) -> Any:
    """A model of this class that asks `base_url`, until the end of the test."""
    _made.append(_foreign(kind, base_url, **options))
    return _made[-1]


def close_all() -> None:
    """Close the synchronous clients of LlamaIndex's models: where a failed test's traceback keeps one, they would end with a warning."""
    while _made:
        if (client := getattr(_made.pop(), "_client", None)) is not None:
            client.close()


def _foreign(kind: str, base_url: str, **options: Any) -> Any:
    if kind == "ChatOpenAI":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY, **options)
    if kind == "OpenAILike":
        from llama_index.llms.openai_like import OpenAILike

        return OpenAILike(model=MODEL, api_base=base_url, api_key=KEY, **{"is_chat_model": True, **options})
    from llama_index.llms.openai import OpenAI

    return OpenAI(model=MODEL, api_base=base_url, api_key=KEY, **options)


PROMPTS = [f"p{number}" for number in range(10)]
ANSWERS = [answer_to(prompt) for prompt in PROMPTS]

PROGRAM = """```repl
FINAL("|".join(llm_batch([f"q{number}" for number in range(4)])))
```"""
CALLS = 5  # of a run whose root writes that program
ANSWER = "|".join(answer_to(f"q{number}") for number in range(4))


def root_or_sub(ask: Ask) -> str:
    """The script of a model that is root and sub-model of the same run: only a root has a system message."""
    return PROGRAM if ask.body["messages"][0]["role"] == "system" else answer_to(ask.prompt)


SCRIPTS = {MODEL: root_or_sub}
