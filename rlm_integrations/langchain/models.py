"""Names of models as LangChain's users write them."""

from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.lm.resolve import FOREIGN, resolve


def model_of(given: Any) -> Any:
    """The model that a name means; anything else as it is.

    "anthropic:claude-sonnet-5" and the like are those of LangChain's `init_chat_model`, made with
    `max_retries=0`.

    Raises:
        InputError: There is no model of this name.
    """
    if not isinstance(given, str):
        return given
    provider, _, name = given.partition(":")
    return init(given) if provider in FOREIGN and name else resolve(given)


def init(name: str) -> Any:
    """The chat model that `init_chat_model` makes.

    Raises:
        InputError: LangChain or the provider's package is not installed, or the model cannot be
            made.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise InputError(
            f"{name!r} is a name for LangChain's init_chat_model: pip install langchain, or give the model itself"
        ) from error
    try:
        model = init_chat_model(name)
        return (
            init_chat_model(name, max_retries=0)
            if "max_retries" in type(model).model_fields
            else model
        )
    except Exception as error:
        raise InputError(f"LangChain makes no model of {name!r}: {error}") from error
