"""LlamaIndex's OpenAI classes over a fast HTTP transport, and a warning before a large fan-out over
a slow one.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rlm_integrations.errors import MissingExtraError
from rlm_integrations.faces.slow_warning import warn_if_slow
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.frameworks.llama_index import LlamaIndexLM

if TYPE_CHECKING:
    from llama_index.llms.openai import OpenAI
    from llama_index.llms.openai_like import OpenAILike


def fast_openai(model: str, **options: Any) -> "OpenAI":
    """LlamaIndex's `OpenAI` with async calls over aiohttp, which is many times faster for dozens of
    concurrent calls.

    It can be used on any number of event loops, and the sync methods of this library use its async
    client too. By default `max_retries` is 0, because this library retries failed calls itself and
    slows down for all calls when a provider refuses.

    Args:
        model: The model's name.
        options: The options of `OpenAI`, except `async_http_client`.

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
    """The same for `OpenAILike`, for any server with OpenAI's API; `is_chat_model` is True by
    default.

    Args:
        model: The model's name.
        options: The options of `OpenAILike`, except `async_http_client`.

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
    """Warn of every model that is about to make this many concurrent calls over a slow
    transport.
    """
    for lm in models:
        if isinstance(lm, LlamaIndexLM):
            is_like = type(lm.model).__name__ == "OpenAILike"
            helper = f"llama_index.{'fast_openai_like' if is_like else 'fast_openai'}"
            options = "max_parallel_calls or max_concurrent"
            warn_if_slow(lm.model, lm.name, calls, helper=helper, options=options)
