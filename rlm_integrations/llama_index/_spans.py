"""Which calls become spans.

Tracers dump every argument and return value of a span, so a document must never be one.
"""

from collections.abc import Callable, Sized
from typing import Any, TypeVar

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

dispatcher = get_dispatcher(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])


def bare(method: Function) -> Function:
    """A method that LlamaIndex would make a span of, and must not: its arguments hold the document."""
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return method


def spanned(name: str) -> Callable[[Function], Function]:
    """The span in its place, under the name by which people know it; the arguments show nothing of
    the document.
    """

    def decorate(method: Function) -> Function:
        method.__name__ = name
        return dispatcher.span(method)  # type: ignore[return-value] # it is typed as any callable

    return decorate


class HiddenFromSpans:
    """Several things on their way through a span, which sees how many there are, if that is known,
    and nothing else.
    """

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __repr__(self) -> str:
        return f"<{len(self.thing):,} items>" if isinstance(self.thing, Sized) else "<items>"
