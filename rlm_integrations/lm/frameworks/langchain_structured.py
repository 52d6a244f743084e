"""LangChain's chat models, bound so that they answer in a JSON schema."""

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from rlm_integrations.errors import InputError


def in_schema(asked: Any, schema: Mapping[str, Any]) -> Any:
    """The same models, with what their `with_structured_output` binds: the class knows whether that
    is a format of the reply or a tool. They still return an `AIMessage`.

    Raises:
        InputError: A model has no structured output, or it is not known which models there are.
    """
    if isinstance(asked, RunnableBindingBase):
        return asked.model_copy(update={"bound": in_schema(asked.bound, schema)})
    if isinstance(asked, RunnableWithFallbacks):
        first, *others = (in_schema(each, schema) for each in asked.runnables)
        return asked.model_copy(update={"runnable": first, "fallbacks": others})
    name = type(asked).__name__
    if not isinstance(asked, BaseChatModel):
        raise InputError(f"structured=True needs a chat model, not a {name}")
    try:
        made = asked.with_structured_output(dict(schema))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"structured=True needs a model with structured output, and a {name} has none: "
            f"{str(error) or type(error).__name__}"
        ) from error
    if not isinstance(made, RunnableSequence):  # it would return what it parsed, without tokens
        raise InputError(f"structured=True does not work with the structured output of a {name}")
    return made.first
