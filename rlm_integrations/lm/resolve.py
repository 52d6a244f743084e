"""Finds the model that a string or an object means."""

import re
from collections.abc import Mapping
from importlib import import_module

from rlm_integrations.errors import InputError, MissingExtraError
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.providers import chat_model_of, is_foreign, provider_in

# By the package of a class of a framework's model: the module of its adapter, imported at the first
# use, and the extra that it needs.
ADAPTERS = {
    "langchain_core": ("langchain", "langchain"),
    "llama_index": ("llama_index", "llama-index"),
}

VALID_MODELS = (
    "a model is a name at OpenAI or OPENAI_BASE_URL ('gpt-5-mini'), 'openai:NAME@BASE_URL' for "
    "any server with OpenAI's API ('openai:llama3.1:8b@http://localhost:11434/v1'), 'offline', a "
    "name for LangChain's init_chat_model ('anthropic:claude-sonnet-5', 'ollama:llama3.1:8b'), a "
    "LangChain BaseChatModel, a LlamaIndex LLM, or an object with `name`, `context_window` and "
    "`complete`, such as OpenAILM"
)


def resolve(model: object) -> LM:
    """The model that a string names, or the object itself if it is a model.

    A name such as "anthropic:claude-sonnet-5" is a model of LangChain's `init_chat_model`.
    A model of LangChain or LlamaIndex gets an adapter; all adapters of one object share one
    limiter.

    Raises:
        InputError: It is neither; the message lists what is valid.
    """
    if isinstance(model, str):
        return _by_name(model)
    if (adapter := _adapter_of(type(model))) is not None:
        return _adapted(model, *adapter)
    if isinstance(model, LM) and not isinstance(model, type):
        return model
    raise InputError(f"{VALID_MODELS}; not a {type(model).__name__}")


def _adapter_of(kind: type) -> tuple[str, str] | None:
    packages = (each.__module__.partition(".")[0] for each in kind.__mro__)
    return next((ADAPTERS[package] for package in packages if package in ADAPTERS), None)


def _adapted(model: object, module: str, extra: str) -> LM:
    try:
        adapter = import_module(f"rlm_integrations.lm.frameworks.{module}")
    # The framework is installed, but in a version that lacks something
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
                f"{text!r} is not of the form 'openai:NAME@BASE_URL' with a BASE_URL that "
                "begins with http:// or https://"
            )
        return OpenAILM(parts["name"], base_url=parts["base_url"])
    if (provider := provider_in(text)) is not None:
        return _adapted(chat_model_of(text, provider), "langchain", "langchain")
    if not text.strip() or "@" in text or is_foreign(text):
        raise InputError(f"{VALID_MODELS}; not {text!r}")
    return OpenAILM(text)


def sub_models(given: object, root: LM) -> dict[str, LM]:
    """The models that code may ask, by name, the default first."""
    if given is None:
        return {root.name: root}
    if not isinstance(given, Mapping):
        lm = resolve(given)
        return {lm.name: lm}
    if not given or not all(isinstance(name, str) and name for name in given):
        raise InputError('sub_llm as a dict needs a name for each model: {"fast": …, "strong": …}')
    return {name: resolve(model) for name, model in given.items()}
