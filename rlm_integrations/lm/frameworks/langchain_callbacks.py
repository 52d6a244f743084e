"""Callbacks of calls whose tokens are not shown.

LangChain turns a call into an HTTP stream wherever a handler of `astream_events` or of LangGraph's
`stream_mode="messages"` listens, also where the tag `nostream` hides the tokens. Such a stream
takes many times the processor time, and many servers count no tokens in it. The wrapper here passes
all events to those handlers, but LangChain does not recognise them as streaming handlers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

# By these methods LangChain recognises the first kind
_TAPS = frozenset({"tap_output_aiter", "tap_output_iter"})


class _Whole:
    """Passes all events but streamed tokens to a handler."""

    __slots__ = ("_handler",)

    def __init__(self, handler: BaseCallbackHandler) -> None:
        self._handler = handler

    def __getattr__(self, name: str) -> Any:
        if name in _TAPS:
            raise AttributeError(name)
        return getattr(self._handler, name)

    def __eq__(self, other: object) -> bool:
        """Equal to the handler itself: LangChain adds no handler twice."""
        return bool(self._handler == (other._handler if isinstance(other, _Whole) else other))

    def __hash__(self) -> int:
        return hash(self._handler)


def wants_stream(callbacks: Callbacks) -> bool:
    """Whether LangChain would stream a call with these callbacks."""
    handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or []
    return any(_wants_stream(each) for each in handlers)


def whole(callbacks: Callbacks) -> Callbacks:
    """The callbacks, wrapped so that LangChain does not stream."""
    if not wants_stream(callbacks):
        return callbacks
    if isinstance(callbacks, list):
        return [_whole(each) for each in callbacks]
    manager = cast("BaseCallbackManager", callbacks).copy()
    manager.handlers = [_whole(each) for each in manager.handlers]
    manager.inheritable_handlers = [_whole(each) for each in manager.inheritable_handlers]
    return manager


def inherited() -> Callbacks:
    """The callbacks of the LangChain run around this, if any."""
    return (var_child_runnable_config.get() or {}).get("callbacks")


@contextmanager
def surrounding(callbacks: Callbacks) -> Iterator[None]:
    """Make these the outer callbacks inside the `with`: a bound model adds the outer callbacks to
    the ones that it is called with.
    """
    if callbacks is inherited():
        yield
        return
    token = var_child_runnable_config.set(
        RunnableConfig(**{**(var_child_runnable_config.get() or {}), "callbacks": callbacks})
    )
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def _wants_stream(handler: object) -> bool:
    return type(handler) is not _Whole and isinstance(
        handler, _StreamingCallbackHandler | _V2StreamingCallbackHandler
    )


def _whole(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    return cast("BaseCallbackHandler", _Whole(handler)) if _wants_stream(handler) else handler
