"""Control over which calls become spans.

Tracers record every argument and return value of a span, so a document must never be one.
"""

from collections.abc import Callable, Sized
from typing import Any, TypeVar

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

dispatcher = get_dispatcher(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])


def bare(method: Function) -> Function:
    """Keep LlamaIndex from making this method a span: its arguments hold the document."""
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return method


def spanned(name: str) -> Callable[[Function], Function]:
    """Make a method a span under its public name; its arguments must not show the document."""

    def decorate(method: Function) -> Function:
        method.__name__ = name
        return dispatcher.span(method)  # type: ignore[return-value] # typed as any callable

    return decorate


class HiddenFromSpans:
    """A wrapper for arguments of a span: tracers see only the number of items, if it is known."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __repr__(self) -> str:
        return f"<{len(self.thing):,} items>" if isinstance(self.thing, Sized) else "<items>"
