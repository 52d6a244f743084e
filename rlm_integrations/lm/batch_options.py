"""The options of batches, and the checks of what users pass."""

import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from reprlib import repr as shown  # bounded: values may be long
from typing import Any, TypedDict

from rlm_integrations.errors import InputError
from rlm_integrations.events import Hook
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.reply_cache import ReplyCache

OnProgress = Callable[[int, int | None, int], object]


class BatchOptions(TypedDict, total=False):
    """The options of all batches, documented at `allm_batch`."""

    max_concurrent: int
    timeout: float | None
    show_progress: bool
    on_progress: OnProgress | None
    dedupe: bool
    cache: ReplyCache | None
    params: Mapping[str, Any] | None
    retry: Retry | None
    on_event: Hook | None


def check_source(source: Any) -> Iterable[Any] | AsyncIterable[Any]:
    """The source, which must be an iterable of prompts."""
    if isinstance(source, str | bytes | Mapping) or not isinstance(
        source, Iterable | AsyncIterable
    ):
        raise InputError(
            f"prompts must be a list, or another iterable, of prompts, not {shown(source)}; "
            "for a single prompt, write [prompt]"
        )
    return source


def check_option(name: str, given: Any, kind: Any) -> Any:
    """The option, which must be None or of this type."""
    if given is not None and not isinstance(given, kind):
        names = {Retry: "a Retry", ReplyCache: "a Storage", Mapping: "a dict"}
        wanted = names.get(kind, "a function")
        raise InputError(f"{name} must be {wanted} or None, not {shown(given)}")
    return given


def check_timeout(seconds: Any) -> float | None:
    """The timeout, which must be None or a number greater than 0."""
    if seconds is None:
        return None
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 < seconds < math.inf
    ):
        raise InputError(
            "timeout must be a number of seconds greater than 0, or None for no limit, not "
            f"{shown(seconds)}"
        )
    return float(seconds)
