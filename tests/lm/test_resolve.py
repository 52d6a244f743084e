"""What a user may write where a model is wanted."""

import subprocess
import sys
from typing import Any

import pytest

from rlm_integrations.errors import InputError
from rlm_integrations.lm.offline import OfflineLM
from rlm_integrations.lm.openai import OpenAILM
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import Completion, Request


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, bare_environment: None) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")


@pytest.mark.parametrize(
    ("text", "name", "base_url"),
    [
        ("gpt-5-mini", "gpt-5-mini", "https://api.openai.com/v1"),
        ("ft:gpt-4o-mini:acme::id", "ft:gpt-4o-mini:acme::id", "https://api.openai.com/v1"),
        ("openai:gpt-5", "gpt-5", "https://api.openai.com/v1"),
        (
            "openai:llama3.1:8b@http://localhost:11434/v1",
            "llama3.1:8b",
            "http://localhost:11434/v1",
        ),
        ("openai:org/model@https://gateway.example/v1/", "org/model", "https://gateway.example/v1"),
    ],
)
def test_names_of_openai_models(text: str, name: str, base_url: str) -> None:
    """A bare name is OpenAI's; "openai:NAME@BASE_URL" is any server that speaks its wire."""
    model = resolve(text)
    assert isinstance(model, OpenAILM)
    assert (model.name, model.base_url) == (name, base_url)


def test_offline() -> None:
    """The name of the stand-in that needs no key."""
    assert isinstance(resolve("offline"), OfflineLM)


class Own:
    name = "own"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        return Completion("x")


def test_a_model_passes_through() -> None:
    """An object that is a model is used as it is."""
    own = Own()
    assert resolve(own) is own


@pytest.mark.parametrize("wrong", [None, 5, "", "  ", object(), Own, [Own()], lambda request: "x"])
def test_what_is_no_model(wrong: Any) -> None:
    """The error names all that can be given; a class is no model."""
    with pytest.raises(InputError) as caught:
        resolve(wrong)
    for hint in ("'gpt-5-mini'", "openai:NAME@BASE_URL", "'offline'", "OpenAILM"):
        assert hint in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        "openai:",
        "openai:x@",
        "openai:x@localhost:8000/v1",
        "openai:@http://h/v1",
        "gpt@http://h/v1",
        "anthropic:claude-x",
        "ollama:x",
    ],
)
def test_strings_that_do_not_read(wrong: str) -> None:
    """A wrong address and another library's prefix are told apart from a model's name."""
    with pytest.raises(InputError, match="openai:NAME@BASE_URL"):
        resolve(wrong)


def test_a_missing_key_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name is written, not at the first call."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        resolve("gpt-5-mini")
    assert isinstance(resolve("openai:x@http://localhost:1/v1"), OpenAILM)


def test_resolving_loads_no_client() -> None:
    """The SDK is loaded at the first call, not where a model is named."""
    code = """
import sys
from rlm_integrations.lm.resolve import resolve
resolve("offline"), resolve("openai:x@http://localhost:1/v1")
clients = ["openai", "aiohttp", "httpx", "httpx2", "pydantic", "genai_prices", "langchain_core", "llama_index"]
print([name for name in clients if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
