"""Model names as LangChain writes them."""

from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.lm.resolve import FOREIGN, resolve


def model_of(given: Any) -> Any:
    """The model for a name; any other object is returned unchanged.

    Names such as "anthropic:claude-sonnet-5" go to LangChain's `init_chat_model`, with
    `max_retries=0`.

    Raises:
        InputError: No model has this name.
    """
    if not isinstance(given, str):
        return given
    provider, _, name = given.partition(":")
    return init(given) if provider in FOREIGN and name else resolve(given)


def init(name: str) -> Any:
    """The chat model that `init_chat_model` creates.

    Raises:
        InputError: LangChain or the provider's package is not installed, or creating the model
            failed.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise InputError(
            f"{name!r} is a name for LangChain's init_chat_model: pip install langchain, or "
            "pass the model object"
        ) from error
    try:
        model = init_chat_model(name)
        return (
            init_chat_model(name, max_retries=0)
            if "max_retries" in type(model).model_fields
            else model
        )
    except Exception as error:
        raise InputError(f"LangChain's init_chat_model cannot create {name!r}: {error}") from error
