"""ChatOpenAI over the quick transport, and a word where a slow one is about to hold a large fan-out
up.
"""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rlm_integrations.errors import MissingExtraError
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.frameworks.slow_transport import (
    SLOW_FROM_CALLS,
    SlowTransportWarning,
    is_slow,
)

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI


def fast_chat_openai(model: str, **options: Any) -> "ChatOpenAI":
    """A ChatOpenAI whose asynchronous calls go over aiohttp, for a fraction of the time from some
    dozen calls at once on.

    Unlike others, it may be used on any number of event loops, and the synchronous doors of this
    library use its asynchronous client too. Two options have other defaults than ChatOpenAI's:
    `max_retries=0`, because this library retries failed calls itself and slows down for all calls
    when a provider refuses, and `stream_usage=True`, so that the tokens of streamed calls are
    counted at any address.

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
    """Warn of every model that is about to make so many calls at once by a transport that does not
    bear them.
    """
    if calls < SLOW_FROM_CALLS:
        return
    for lm in models:
        slow = next((each for each in getattr(lm, "models", ()) if is_slow(each)), None)
        if slow is not None:
            warnings.warn(
                f"{type(slow).__name__}({lm.name!r}) makes up to {calls} calls at once by httpx's default transport, which takes many "
                "times the processor time of a quick one: make it by rlm_integrations.langchain.fast_chat_openai(…), or bound the calls by "
                "max_concurrency",
                SlowTransportWarning,
                stacklevel=2,
            )
