"""Replies that model code may await although they have arrived."""

from typing import Any

from ..records import LLMReply


class AwaitableText(LLMReply):
    """A reply that may be awaited although it is already there: `r = llm_query(p)`, later `await
    r`.
    """

    __slots__ = ()

    def __await__(self) -> Any:
        yield from ()  # makes this a generator, which is what `await` needs
        return LLMReply(self, self.finish_reason)


class AwaitableList(list[Any]):
    """Replies that may be awaited although they are already there."""

    __slots__ = ()

    def __await__(self) -> Any:
        yield from ()
        return list(self)
