"""ChatOpenAI over a fast HTTP transport, and a warning for large fan-outs over a slow one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rlm_integrations.errors import MissingExtraError
from rlm_integrations.faces.slow_warning import warn_if_slow
from rlm_integrations.lm.base import LM

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI


def fast_chat_openai(model: str, **options: Any) -> "ChatOpenAI":
    """A ChatOpenAI whose async calls use aiohttp, which is many times faster for dozens of
    concurrent calls.

    Unlike a plain ChatOpenAI, it can be used on any number of event loops, and the sync API of this
    library uses its async client too. Two defaults differ from ChatOpenAI's: `max_retries=0`,
    because this library retries failed calls itself and slows down for all calls when a provider
    refuses, and `stream_usage=True`, so that the tokens of streamed calls are counted at any
    address.

    Args:
        model: The model's name.
        options: Those of ChatOpenAI, but for `http_async_client`.

    Raises:
        MissingExtraError: langchain-openai is not installed.
    """
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise MissingExtraError("fast_chat_openai", "langchain-openai") from error
    from rlm_integrations.lm.openai.transport import LoopsClient

    return ChatOpenAI(
        model=model,
        http_async_client=LoopsClient(),
        **{"max_retries": 0, "stream_usage": True, **options},
    )


def warn_of_slow(models: Iterable[LM], calls: int) -> None:
    """Warn of every model that is about to make this many concurrent calls over a slow
    transport.
    """
    for lm in models:
        for each in getattr(lm, "models", ()):
            warn_if_slow(
                each, lm.name, calls, helper="langchain.fast_chat_openai", options="max_concurrency"
            )
