"""An agent that reads long pages and talks on until its memory is full, and still finds a fact on the
first page and one in the first message. `RLMMemoryBlock` keeps both, whole, in an archive that the
agent asks.

The agent's model is LlamaIndex's mock, which follows a script; replace it with any LLM that supports
tools. No key and no network are needed.

    python examples/llama_index_memory.py [--spoil]
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from _documents import long_document
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import Memory
from sqlalchemy.ext.asyncio import create_async_engine

from rlm_integrations.llama_index import RLMMemoryBlock

GUARDIAN = "Irene Kovač"
ON_A_PAGE = f"The guardian of the Ghent archive is {GUARDIAN}."
IN_A_MESSAGE = "My colleague in Tallinn is Mart Saar."
QUESTIONS = {"Who is the guardian of the Ghent archive?": ON_A_PAGE}
QUESTIONS["Who is my colleague in Tallinn?"] = IN_A_MESSAGE
PAGES = 20
WINDOW = 4_000  # tokens; the pages have two hundred times as many


class Reader:
    """The script of the agent's model: it reads a page, asks its archive, or repeats what it was
    told.
    """

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
        """The reply to these messages."""
        self.largest = max(self.largest, sum(len(each.content or "") for each in messages) // 4)
        last = messages[-1]
        if last.role.value == "tool":
            return ChatMessage(f"It says: {(last.content or '')[:200]}", role="assistant")
        said = last.content or ""
        name, arguments = "ask_context", {"question": said}
        if said.startswith("Read page "):
            name, arguments = "read_page", {"page": said.removeprefix("Read page ")}
        call = ToolCallBlock(tool_call_id="1", tool_name=name, tool_kwargs=arguments)
        return ChatMessage(role="assistant", blocks=[call])


async def talk(first_page: str) -> int:
    """Talk to the agent; returns 0 if its answers are right, otherwise 1."""

    def read_page(page: int) -> str:
        """A page of the archive, which is long."""
        return first_page if int(page) == 1 else long_document([f"Page {page}."], 200_000)

    block, model = RLMMemoryBlock("offline"), Reader()
    database = create_async_engine("sqlite+aiosqlite:///:memory:")  # of the memory's messages
    memory = Memory.from_defaults(
        session_id="ghent",
        token_limit=WINDOW,
        token_flush_size=500,
        memory_blocks=[block],
        async_engine=database,
    )
    agent = FunctionAgent(
        tools=[block.askable(read_page, offload_above=1_000), *block.tools()],
        llm=MockFunctionCallingLLM(response_generator=model),
        streaming=False,
    )
    await memory.aput(ChatMessage(IN_A_MESSAGE, role="user"))
    await memory.aput(ChatMessage("I will remember it.", role="assistant"))
    for page in range(1, PAGES + 1):
        await agent.run(user_msg=f"Read page {page}", memory=memory)
    wrong = 0
    for question, fact in QUESTIONS.items():
        handler, quotes = agent.run(user_msg=question, memory=memory), []
        async for event in handler.stream_events():
            if isinstance(event, ToolCallResult):
                quotes = [
                    each.node.get_content() for each in event.tool_output.raw_output.source_nodes
                ]
        print(f"Q: {question}\nA: {await handler}\nquotes: {quotes}")
        wrong += not any(fact in each for each in quotes)
    await database.dispose()
    print(f"the largest request has {model.largest:,} tokens")
    print("WRONG" if wrong or model.largest > WINDOW else "right, and cited")
    return int(wrong > 0 or model.largest > WINDOW)


def main(argv: Sequence[str] = ()) -> int:
    """Run the example as a script."""
    page = long_document([ON_A_PAGE], 200_000)
    if "--spoil" in argv:  # remove the fact, to see the check fail
        page = page.replace(GUARDIAN, "***********")
    return asyncio.run(talk(page))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
