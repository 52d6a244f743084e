"""A scripted chat model for agents, and checks of conversations."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from pydantic import Field

Reply = AIMessage | Exception
FACT = "The Ravenna dam was approved by Ada Conti."
LARGE = "The weather is fine. " * 5_000 + FACT + " Winter came." * 5_000


class ScriptedChat(BaseChatModel):
    """A chat model that gives replies in turn, and keeps what it was sent.

    Attributes:
        replies: The replies, or errors that are raised.
        requests: The messages of each call.
        tools: The names of the tools of each call.
        tokens: The tokens of each call, with its tools, by its own count.
    """

    replies: Any
    requests: list[list[BaseMessage]] = Field(default_factory=list)
    tools: list[list[str]] = Field(default_factory=list)
    tokens: list[int] = Field(default_factory=list)

    def __init__(self, *replies: Reply | str) -> None:
        super().__init__(replies=iter(replies))

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=list(tools))

    def _generate(
        self, messages: list[BaseMessage], *_: Any, tools: Any = (), **kwargs: Any
    ) -> ChatResult:
        self.requests.append(list(messages))
        self.tools.append(
            [each.name if isinstance(each, BaseTool) else str(each) for each in tools]
        )
        self.tokens.append(count_tokens_approximately(messages, tools=list(tools)))
        assert broken_pairs(messages) == []
        reply = next(self.replies)
        if isinstance(reply, Exception):
            raise reply
        message = AIMessage(reply) if isinstance(reply, str) else reply.model_copy()
        return ChatResult(generations=[ChatGeneration(message=message)])


def calls(*named: tuple[str, dict[str, Any]], first: int = 0) -> AIMessage:
    """A reply that calls these tools at once."""
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": args, "id": f"call_{first + at}"}
            for at, (name, args) in enumerate(named)
        ],
    )


def broken_pairs(messages: Sequence[BaseMessage]) -> list[str]:
    """The ids of calls without results before the next AI message, and of results without calls."""
    broken: list[str] = []
    pending: list[str] = []
    for each in messages:
        if isinstance(each, AIMessage):
            broken += pending
            pending = [str(call["id"]) for call in each.tool_calls]
        elif isinstance(each, ToolMessage):
            if each.tool_call_id in pending:
                pending.remove(each.tool_call_id)
            else:
                broken.append(each.tool_call_id)
    return broken + pending


def results(messages: Sequence[BaseMessage]) -> list[ToolMessage]:
    """The tools' messages."""
    return [each for each in messages if isinstance(each, ToolMessage)]
