"""Replies that model code may also await."""

from typing import Any

from ..records import LLMReply


class AwaitableText(LLMReply):
    """A reply that may also be awaited: `r = llm_query(p)`, later `await r`."""

    __slots__ = ()

    def __await__(self) -> Any:
        yield from ()  # makes this function a generator, as `await` requires
        return LLMReply(self, self.finish_reason)


class AwaitableList(list[Any]):
    """A list of replies that may also be awaited."""

    __slots__ = ()

    def __await__(self) -> Any:
        yield from ()
        return list(self)
