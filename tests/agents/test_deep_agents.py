"""Deep Agents with our middleware; `make test-agents` has an environment for it."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlm_integrations.langchain import RLMMiddleware, RLMRunnable, as_node
from tests.langchain._agents import both
from tests.langchain._conversations import FACT, LARGE, ScriptedChat, calls, results
from tests.langchain.test_middleware import OURS, QUESTION, fetch, finished

deepagents: Any = pytest.importorskip(
    "deepagents", reason="Deep Agents has an environment of its own: `make test-agents`"
)
BOUND = 24_000


@both
async def test_a_deep_agent_asks_what_its_sub_agent_read(asynchronously: bool) -> None:
    """In `create_deep_agent`, beside its own middleware, requests stay below the bound; and what a
    sub-agent with the same middleware read is in the document of the thread.
    """
    memory = RLMMiddleware("offline", keep_below=BOUND, offload_above=1_000, keep_recent=2)
    reader = ScriptedChat(calls(("fetch", {"page": 0}), first=500), "I have read it.")
    model = ScriptedChat(
        calls(("task", {"description": "Read page 0.", "subagent_type": "reader"})),
        *[calls(("fetch", {"page": page}), first=page) for page in range(1, 30)],
        calls(("ask_context", {"question": QUESTION}), first=900),
        calls(("search_context", {"pattern": "page 1 says"}), first=901),
        "It was Ada Conti.",
    )
    sub_agent = {
        "name": "reader",
        "description": "Reads.",
        "system_prompt": "Read.",
        "model": reader,
        "tools": [fetch],
        "middleware": [memory],
    }
    agent = deepagents.create_deep_agent(
        model, [fetch], middleware=[memory], subagents=[sub_agent], checkpointer=InMemorySaver()
    )
    state = await finished(agent, [HumanMessage("Go.")], asynchronously)
    assert max(model.tokens) <= BOUND
    assert not {*OURS} & {*model.tools[0]}
    assert {*OURS} <= {*model.tools[-1]}
    answer, search = results(state["messages"])[-2:]
    assert answer.artifact["context"][0]["page_content"] == FACT
    assert "Page 1 says 17." in search.text
    assert len(results(reader.requests[-1])[0].text) < 3_000


@both
async def test_a_document_is_a_sub_agent(asynchronously: bool) -> None:
    """A node over a document is the runnable of a `CompiledSubAgent`: a task is a question, and the
    answer its result.
    """
    archivist = deepagents.CompiledSubAgent(
        name="archivist",
        description="Answers questions over the archive.",
        runnable=as_node(RLMRunnable("offline", context=LARGE), question_key="messages"),
    )
    task = calls(("task", {"description": QUESTION, "subagent_type": "archivist"}))
    agent = deepagents.create_deep_agent(ScriptedChat(task, "Done."), [], subagents=[archivist])
    state = await finished(agent, [HumanMessage("Go.")], asynchronously)
    assert [each.text for each in results(state["messages"])] == [FACT]
