"""From what users write to a model that can be asked."""

import re
from importlib import import_module

from rlm_integrations.errors import InputError, MissingExtraError
from rlm_integrations.lm.base import LM

# Foreign models by the package of one of their classes: the module of the adapter, imported when
# one is given, and the extra it needs.
ADAPTERS = {
    "langchain_core": ("langchain", "langchain"),
    "llama_index": ("llama_index", "llama-index"),
}

WHAT_CAN_BE_GIVEN = (
    "a model is a name at OpenAI or OPENAI_BASE_URL ('gpt-5-mini'), 'openai:NAME@BASE_URL' for any server that speaks OpenAI's "
    "wire ('openai:llama3.1:8b@http://localhost:11434/v1'), 'offline', a LangChain BaseChatModel, a LlamaIndex LLM, or an object with "
    "`name`, `context_window` and `complete`, such as OpenAILM"
)
# Providers that other libraries take before a colon. A local model's own colon ('llama3.1:8b')
# follows other names.
FOREIGN = {
    "anthropic",
    "azure_openai",
    "bedrock",
    "cohere",
    "fireworks",
    "google",
    "google_genai",
    "google_vertexai",
    "groq",
}
FOREIGN |= {"huggingface", "mistralai", "ollama", "together", "vllm"}


def resolve(model: object) -> LM:
    """The model that a user means by a string, or the object itself where it is a model.

    A model of LangChain or LlamaIndex gets an adapter; all adapters of one object share one
    limiter.

    Raises:
        InputError: It is neither; the message says what can be given.
    """
    if isinstance(model, str):
        return _by_name(model)
    if (adapter := _adapter_of(type(model))) is not None:
        return _adapted(model, *adapter)
    if isinstance(model, LM) and not isinstance(model, type):
        return model
    raise InputError(f"{WHAT_CAN_BE_GIVEN}; not a {type(model).__name__}")


def _adapter_of(kind: type) -> tuple[str, str] | None:
    packages = (each.__module__.partition(".")[0] for each in kind.__mro__)
    return next((ADAPTERS[package] for package in packages if package in ADAPTERS), None)


def _adapted(model: object, module: str, extra: str) -> LM:
    try:
        adapter = import_module(f"rlm_integrations.lm.frameworks.{module}")
    # The framework is there, but not in a version that has all that is needed
    except ImportError as error:
        raise MissingExtraError(f"a {type(model).__name__} as a model", extra) from error
    adapted: LM = adapter.adapt(model)
    return adapted


def _by_name(text: str) -> LM:
    if text == "offline":
        from rlm_integrations.lm.offline import OfflineLM

        return OfflineLM()
    from rlm_integrations.lm.openai import OpenAILM

    if text.startswith("openai:"):
        parts = re.fullmatch(r"openai:(?P<name>[^@]+)(@(?P<base_url>https?://.+))?", text)
        if parts is None:
            raise InputError(
                f"{text!r} does not read as 'openai:NAME@BASE_URL' with a BASE_URL that begins with http:// or https://"
            )
        return OpenAILM(parts["name"], base_url=parts["base_url"])
    if not text.strip() or "@" in text or text.partition(":")[0] in FOREIGN:
        raise InputError(f"{WHAT_CAN_BE_GIVEN}; not {text!r}")
    return OpenAILM(text)
