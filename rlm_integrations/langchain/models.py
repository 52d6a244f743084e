"""Model names as LangChain writes them."""

from typing import Any

from rlm_integrations.lm.providers import chat_model_of, provider_in
from rlm_integrations.lm.resolve import resolve


def model_of(given: Any) -> Any:
    """The model for a name; any other object is returned unchanged.

    Names such as "anthropic:claude-sonnet-5" become chat models, with `max_retries=0`.

    Raises:
        InputError: No model has this name.
    """
    if not isinstance(given, str):
        return given
    provider = provider_in(given)
    return resolve(given) if provider is None else chat_model_of(given, provider)
