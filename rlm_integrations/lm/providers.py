"""The names of models that LangChain's `init_chat_model` creates, such as "anthropic:claude-…"."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from rlm_integrations.errors import InputError

# What is before the colon, and the package that it needs beside langchain. In the name of a local
# model ("llama3.1:8b") a colon follows other words. "openai" has clients of its own here.
PACKAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anthropic": "langchain-anthropic",
        "anthropic_bedrock": "langchain-aws",
        "azure_ai": "langchain-azure-ai",
        "azure_openai": "langchain-openai",
        "baseten": "langchain-baseten",
        "bedrock": "langchain-aws",
        "bedrock_converse": "langchain-aws",
        "bedrock_mantle_anthropic": "langchain-aws",
        "bedrock_mantle_openai": "langchain-aws",
        "cohere": "langchain-cohere",
        "deepseek": "langchain-deepseek",
        "fireworks": "langchain-fireworks",
        "google_anthropic_vertex": "langchain-google-vertexai",
        "google_genai": "langchain-google-genai",
        "google_vertexai": "langchain-google-vertexai",
        "groq": "langchain-groq",
        "huggingface": "langchain-huggingface",
        "ibm": "langchain-ibm",
        "langsmith": "langchain-openai",
        "litellm": "langchain-litellm",
        "meta": "langchain-meta",
        "mistralai": "langchain-mistralai",
        "nvidia": "langchain-nvidia-ai-endpoints",
        "ollama": "langchain-ollama",
        "openrouter": "langchain-openrouter",
        "perplexity": "langchain-perplexity",
        "together": "langchain-together",
        "upstage": "langchain-upstage",
        "xai": "langchain-xai",
    }
)
# Of other libraries: names that no part of this one knows
_OTHERS: Final = frozenset({"google", "vllm"})


def provider_in(name: str) -> str | None:
    """The provider in a name, if `init_chat_model` knows it."""
    provider, _, model = name.partition(":")
    return provider if provider in PACKAGES and model.strip() else None


def is_foreign(name: str) -> bool:
    """Whether a name begins with a provider, of LangChain's or of another library's."""
    provider, colon, _ = name.partition(":")
    return bool(colon) and (provider in PACKAGES or provider in _OTHERS)


def chat_model_of(name: str, provider: str) -> Any:
    """The chat model that `init_chat_model` creates for the name of a model of this provider.
    LangChain is imported here.

    Raises:
        InputError: LangChain or the provider's package is not installed, or creating the model
            failed.
    """
    package = PACKAGES[provider]
    needed = (
        f"{name!r} is a name for LangChain's init_chat_model, which needs the packages langchain "
        f"and {package}: pip install langchain {package}"
    )
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise InputError(needed) from error
    try:
        model = init_chat_model(name)
        # Its own retries would slow down all calls when a provider refuses some
        return (
            init_chat_model(name, max_retries=0)
            if "max_retries" in type(model).model_fields
            else model
        )
    except ImportError as error:
        raise InputError(needed) from error
    except Exception as error:
        raise InputError(f"LangChain's init_chat_model cannot create {name!r}: {error}") from error
