"""LlamaIndex's OpenAI classes over the quick transport, and a warning where a slow one is about to
hold a large fan-out up.
"""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rlm_integrations.errors import MissingExtraError
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.frameworks.llama_index import LlamaIndexLM
from rlm_integrations.lm.frameworks.slow_transport import (
    SLOW_FROM_CALLS,
    SlowTransportWarning,
    is_slow,
)

if TYPE_CHECKING:
    from llama_index.llms.openai import OpenAI
    from llama_index.llms.openai_like import OpenAILike


def fast_openai(model: str, **options: Any) -> "OpenAI":
    """LlamaIndex's `OpenAI`, whose asynchronous calls go over aiohttp: from some dozen calls at
    once a fraction of the time.

    It may be used on any number of event loops, and the synchronous methods of this library use its
    asynchronous client too. By default `max_retries` is 0, because this library retries failed
    calls itself and slows down for all calls when a provider refuses.

    Args:
        model: The model's name.
        options: Those of `OpenAI`, but for `async_http_client`.

    Raises:
        MissingExtraError: llama-index-llms-openai is not installed.
    """
    try:
        from llama_index.llms.openai import OpenAI
    except ImportError as error:
        raise MissingExtraError("fast_openai", "llama-index-openai") from error
    from rlm_integrations.lm.openai.transport import LoopsClient

    return OpenAI(model=model, async_http_client=LoopsClient(), **{"max_retries": 0, **options})


def fast_openai_like(model: str, **options: Any) -> "OpenAILike":
    """The same for `OpenAILike`, which asks any server that speaks OpenAI's protocol;
    `is_chat_model` is True by default.

    Args:
        model: The model's name.
        options: Those of `OpenAILike`, but for `async_http_client`.

    Raises:
        MissingExtraError: llama-index-llms-openai-like is not installed.
    """
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as error:
        raise MissingExtraError("fast_openai_like", "llama-index-openai") from error
    from rlm_integrations.lm.openai.transport import LoopsClient

    given: dict[str, Any] = {
        "async_http_client": LoopsClient(),
        "max_retries": 0,
        "is_chat_model": True,
        **options,
    }
    return OpenAILike(model=model, **given)


def warn_of_slow(models: Iterable[LM], calls: int) -> None:
    """Warn of every model that may make so many asynchronous calls at once by a transport that does
    not bear them.
    """
    if calls < SLOW_FROM_CALLS:
        return
    for lm in models:
        if isinstance(lm, LlamaIndexLM) and is_slow(lm.model):
            kind = type(lm.model).__name__
            helper = "fast_openai_like" if kind == "OpenAILike" else "fast_openai"
            warnings.warn(
                f"{kind}({lm.name!r}) makes up to {calls} calls at once by httpx's default transport, which takes many times the "
                f"processor time of a quick one: make it by rlm_integrations.llama_index.{helper}(…), or bound the calls by "
                "max_parallel_calls or max_concurrent",
                SlowTransportWarning,
                stacklevel=2,
            )
