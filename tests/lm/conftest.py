"""Fixtures for tests of models: a stand-in provider, and an environment without keys and
proxies.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from rlm_integrations.records import Message, Request
from tests.lm import _foreign
from tests.standin import StandIn, serve

VARIABLES = [
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_CUSTOM_HEADERS",
]
VARIABLES += [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_API_URL",
    "ANTHROPIC_PROXY",
]
VARIABLES += [
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_GEMINI_BASE_URL",
]
VARIABLES += ["LANGSMITH_GATEWAY", "LANGSMITH_GATEWAY_API_KEY"]
VARIABLES += [
    name
    for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (base, base.lower())
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    yield
    _foreign.close_all()


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    async with serve(keep_requests=True) as standin:
        yield standin


def request_of(prompt: str, **fields: object) -> Request:
    return Request((Message("user", prompt),), **fields)
