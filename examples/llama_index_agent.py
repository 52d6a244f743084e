"""An agent that queries a long document with a tool, and shows the progress of the tool's run in
its own stream.

No key and no network are needed: the document's model is "offline", and the agent's is LlamaIndex's
mock, which calls the tool once and repeats its output.

    python examples/llama_index_agent.py
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from _documents import long_document
from llama_index.core import Document
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM

from rlm_integrations.llama_index import RLMQueryEngine, RLMWorkflowEvent, as_query_engine_tool

QUESTION = "When did the Tallinn expedition depart?"
FACT = "The Tallinn expedition did depart on 4 May 1911."


def call_then_repeat(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """The replies of the agent's model."""
    said = [message.content for message in messages if message.role.value == "tool"]
    if said:
        return ChatMessage(f"I looked it up: {said[-1]}", role="assistant")
    call = ToolCallBlock(
        tool_call_id="1", tool_name="ask_chronicle", tool_kwargs={"input": QUESTION}
    )
    return ChatMessage(role="assistant", blocks=[call])


async def talk() -> int:
    """Ask the agent; returns 0 if everything is right."""
    document = Document(text=long_document([FACT], 1_500_000))
    engine = RLMQueryEngine.from_defaults(document, llm="offline")
    tool = as_query_engine_tool(
        engine, "ask_chronicle", "Answers questions about the chronicle of Tallinn."
    )
    agent = FunctionAgent(
        tools=[tool],
        llm=MockFunctionCallingLLM(response_generator=call_then_repeat),
        streaming=False,
    )
    handler = agent.run(QUESTION)
    steps, sources = [], []
    async for event in handler.stream_events():
        if isinstance(event, RLMWorkflowEvent):
            steps.append(event.kind)
        elif isinstance(event, ToolCallResult):
            sources = event.tool_output.raw_output.source_nodes
    answer = str(await handler)
    print(
        f"Q: {QUESTION}\nA: {answer}\nsteps: {', '.join(steps)}\nsources: "
        f"{[source.node.text for source in sources]}"
    )
    return (
        0
        if FACT in answer
        and steps[0] == "run_started"
        and [source.node.text for source in sources] == [FACT]
        else 1
    )


def main() -> int:
    """Run the example as a script."""
    return asyncio.run(talk())


if __name__ == "__main__":
    sys.exit(main())
