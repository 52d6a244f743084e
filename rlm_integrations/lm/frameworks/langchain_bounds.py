"""The bound on the tokens of a reply, in LangChain's models and what is around them."""

from collections.abc import Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from rlm_integrations.lm.frameworks.base import BOUNDS, own_bound


def own_bound_of(asked: object, models: Sequence[BaseChatModel]) -> int | None:
    """The bound on a reply's tokens that the user set in the models, or bound to them."""
    bounds = [own_bound(model) for model in models]
    longest = (
        None
        if None in bounds or not bounds
        else max(bound for bound in bounds if bound is not None)
    )
    given = [] if longest is None else [longest]
    while isinstance(asked, RunnableBindingBase):
        given += [
            value for name, value in asked.kwargs.items() if name in BOUNDS and type(value) is int
        ]
        asked = asked.bound
    return min(given, default=None)


def takes_arguments(asked: object) -> bool:
    """Whether arguments of a call reach the models: a chain passes them to its first step."""
    if isinstance(asked, RunnableBindingBase):
        return takes_arguments(asked.bound)
    if isinstance(asked, RunnableWithFallbacks):
        return all(map(takes_arguments, asked.runnables))
    return isinstance(asked, BaseChatModel)


def bound_of(models: Sequence[BaseChatModel]) -> str | None:
    """Their classes' parameter for the bound on a reply; None if a call accepts none, or they
    differ.
    """
    names = {_bound_name(model) for model in models}
    return names.pop() if len(names) == 1 else None


def _bound_name(model: BaseChatModel) -> str | None:
    fields = type(model).model_fields
    if "num_predict" in fields:  # Ollama's: settable on the object only
        return None
    return "max_output_tokens" if "max_output_tokens" in fields else "max_tokens"
