"""An agent that reads long pages until its window is full, and still finds a fact on the first one.
`RLMMiddleware` moves what is too long out of the window, whole, and the agent asks it.

The agent's model is a fake that reads twenty pages and then asks; replace it with any LangChain
chat model that supports tools. No key and no network are needed: see langchain_huge_document.py.

    python examples/langchain_middleware.py [--spoil]
"""

import sys
from collections.abc import Sequence
from typing import Any

from _documents import long_document
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from pydantic import Field

from rlm_integrations.langchain import RLMMiddleware

QUESTION = "Who is the guardian of the Ghent archive?"
VALUE = "Irene Kovač"
PAGES = 20
WINDOW = 8_000  # tokens; the pages have a hundred times as many


class Reader(BaseChatModel):
    """A fake chat model: it reads all pages, asks its archive, and repeats the answer."""

    sizes: list[int] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "reader"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        """The model with these tools."""
        return self.bind(tools=tools)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: Any = None,  # noqa: ARG002 - LangChain's
        run_manager: Any = None,  # noqa: ARG002
        **_: Any,
    ) -> ChatResult:
        self.sizes.append(count_tokens_approximately(messages))
        page = len(self.sizes)
        if page > PAGES + 1:
            reply = AIMessage(f"The archive says: {messages[-1].text}")
        else:
            name, args = "read_page", {"page": page}
            if page > PAGES:
                name, args = "ask_context", {"question": QUESTION}
            reply = AIMessage("", tool_calls=[ToolCall(name=name, args=args, id=f"call_{page}")])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def main(argv: Sequence[str] = ()) -> int:
    """Run the agent, and check its answer; returns 0 if it is right, otherwise 1."""
    fact = f"The guardian of the Ghent archive is {VALUE}."
    first = long_document([fact], 200_000)
    if "--spoil" in argv:  # remove the fact, to see the check fail
        first = first.replace(VALUE, "***********")

    @tool
    def read_page(page: int) -> str:
        """A page of the archive, which is long."""
        return first if page == 1 else long_document([f"This is page {page}."], 200_000)

    model = Reader()
    memory = RLMMiddleware("offline", keep_below=WINDOW, offload_above=1_000)
    agent = create_agent(model, [read_page], middleware=[memory])
    state = agent.invoke({"messages": [HumanMessage(QUESTION)]}, {"recursion_limit": 100})

    told = next(each for each in reversed(state["messages"]) if isinstance(each, ToolMessage))
    print(f"{len(model.sizes)} requests, the largest has {max(model.sizes):,} tokens")
    print(state["messages"][-1].text)
    quotes = [each["page_content"] for each in told.artifact["context"]]
    is_right = fact in quotes and max(model.sizes) <= WINDOW
    print("right, and cited" if is_right else f"WRONG: the archive says {VALUE!r}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
