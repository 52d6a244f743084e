"""An agent that queries a huge document with a tool. The document is in no message, no artifact and
no checkpoint.

The agent's model is a fake that calls the tool first and then repeats its answer; replace it with
any LangChain chat model that supports tools. No key and no network are needed: see
langchain_huge_document.py.

    python examples/langchain_agent.py [--spoil]
"""

import sys
from collections.abc import Sequence
from typing import Any, TypedDict

from _documents import long_document
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from rlm_integrations.langchain import RLMRunnable, create_rlm_tool

QUESTION = "Who is the guardian of the Ghent archive?"
VALUE = "Irene Kovač"


class Assistant(BaseChatModel):
    """A fake chat model: it passes its question to the tool, and repeats the tool's answer."""

    @property
    def _llm_type(self) -> str:
        return "assistant"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        """The model with these tools."""
        return self.bind(tool=tools[0].name)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: Any = None,  # noqa: ARG002 - LangChain's
        run_manager: Any = None,  # noqa: ARG002
        *,
        tool: str = "",
        **_: Any,
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            reply = AIMessage(f"The document says: {last.text}")
        else:
            reply = AIMessage(
                "", tool_calls=[ToolCall(name=tool, args={"question": last.text}, id="call_1")]
            )
        return ChatResult(generations=[ChatGeneration(message=reply)])


class Context(TypedDict):
    """The runtime context of a call of the agent, which is in no checkpoint."""

    archive: str


def main(argv: Sequence[str] = ()) -> int:
    """Ask the agent, and check its answer; returns 0 if it is right, otherwise 1."""
    archive = long_document([f"The guardian of the Ghent archive is {VALUE}."], 2_000_000)
    if "--spoil" in argv:  # remove the fact, to see the check fail
        archive = archive.replace(VALUE, "***********")

    tool = create_rlm_tool(
        RLMRunnable("offline"),
        name="ask_archive",
        description="Answers one complete question over the town's archive, with quotes.",
        context_key="archive",
    )
    agent = create_agent(Assistant(), [tool], context_schema=Context, checkpointer=InMemorySaver())

    config: Any = {"configurable": {"thread_id": "1"}}
    question: Any = {"messages": [HumanMessage(QUESTION)]}
    for step in agent.stream(question, config, context={"archive": archive}, stream_mode="custom"):
        print(f"   {step['type']} {step.get('iteration') or step.get('done') or ''}")
    checkpoint = agent.get_state(config)
    messages = checkpoint.values["messages"]
    for message in messages:
        print(f"{message.type}: {message.text or message.tool_calls[0]['args']}")

    told = next(message for message in messages if isinstance(message, ToolMessage))
    places = told.artifact["rlm"]["citations"]
    holds = any(VALUE in archive[place["start"] : place["end"]] for place in places)
    is_small = len(repr(checkpoint)) < 20_000  # the document has two megabytes
    is_right = VALUE in messages[-1].text and holds and is_small
    print("right, and cited" if is_right else f"WRONG: the archive says {VALUE!r}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
