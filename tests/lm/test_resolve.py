"""The names and objects that are accepted as models."""

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
    """A bare name is a model of OpenAI; "openai:NAME@BASE_URL" is a model of any server with its
    API.
    """
    model = resolve(text)
    assert isinstance(model, OpenAILM)
    assert (model.name, model.base_url) == (name, base_url)


def test_offline() -> None:
    """`offline` is the model that needs no key."""
    assert isinstance(resolve("offline"), OfflineLM)


class Own:
    name = "own"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        return Completion("x")


def test_a_model_passes_through() -> None:
    """An object that is a model is returned unchanged."""
    own = Own()
    assert resolve(own) is own


@pytest.mark.parametrize("wrong", [None, 5, "", "  ", object(), Own, [Own()], lambda request: "x"])
def test_an_invalid_model_is_refused(wrong: Any) -> None:
    """The error lists all valid forms; a class is not a model."""
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
        "google:gemini",
        "vllm:x",
        "anthropic:",
    ],
)
def test_invalid_names(wrong: str) -> None:
    """The errors distinguish a wrong address and another library's prefix from a model's name."""
    with pytest.raises(InputError, match="openai:NAME@BASE_URL"):
        resolve(wrong)


def test_a_missing_key_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is an error when the model is created, not at the first call."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        resolve("gpt-5-mini")
    assert isinstance(resolve("openai:x@http://localhost:1/v1"), OpenAILM)


def test_resolving_loads_no_client() -> None:
    """The SDK is loaded at the first call, not when a model is resolved."""
    code = """
import sys
from rlm_integrations.lm.resolve import resolve
resolve("offline"), resolve("openai:x@http://localhost:1/v1")
clients = ["openai", "aiohttp", "httpx", "httpx2", "pydantic", "genai_prices", "langchain_core", "llama_index"]
print([name for name in clients if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
