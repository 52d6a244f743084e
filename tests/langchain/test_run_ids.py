"""A graph that goes on after a crash resumes the runs of its nodes and tools, and pays for no call
twice; each visit of a node has a run of its own.
"""

import asyncio
import json
import operator
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMRunnable, as_node, create_rlm_tool
from rlm_integrations.storage import Storage
from tests._forked import Forked
from tests.engine.conftest import Scripted, code, final, soon
from tests.langchain._agents import agent, closed, told
from tests.langchain._graph import DOCUMENT, PROGRAM, runnable
from tests.standin import Fault, Reply, StandIn, serve_in_thread

THREAD: Any = {"configurable": {"thread_id": "thread 1"}}
CALLS = 7  # of one run: three turns and four sub-calls, of which the last is the sixth call


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server that counts its calls."""
    with serve_in_thread(scripts={"root": PROGRAM}, keep_requests=True) as standin:
        yield standin


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """An empty storage."""
    with Storage(tmp_path / "runs") as opened:
        yield opened


def answered(provider: StandIn) -> Counter[tuple[str, str, int]]:
    """How often the server answered each prompt of the runs."""
    requests = provider.requests()
    done = [call.number for call in provider.calls() if call.status == 200 and not call.aborted]
    bodies = [requests[number].body for number in done]
    return Counter(
        (body["model"], body["messages"][-1]["content"], len(body["messages"])) for body in bodies
    )


def hanging(provider: StandIn) -> int:
    """How many calls wait for their answers."""
    return provider.stats().in_flight


def program(provider: StandIn, folder: Path, *, goes_on: bool) -> Forked:
    given = {"base_url": provider.base_url, "folder": str(folder), "goes_on": goes_on}
    return Forked("-m", "tests.langchain._graph", json.dumps(given))


def test_a_killed_graph_resumes_the_run_inside(provider: StandIn, tmp_path: Path) -> None:
    """Its process is killed with -9 in the middle of the second of two nodes that ask the same. In
    another process the graph goes on: no call that was answered is made again.
    """
    provider.change(faults=[Fault("hang", at=(CALLS + 5,))])
    with program(provider, tmp_path, goes_on=False) as process:
        assert soon(lambda: hanging(provider) == 1 or process.poll() is not None)
        os.killpg(process.pid, signal.SIGKILL)
    provider.change(faults=[])
    with program(provider, tmp_path, goes_on=True) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors[-3_000:]
    state = json.loads(output)
    assert state["first"] == state["answer"]
    assert state["first_rlm"]["run_id"] != state["rlm"]["run_id"]
    # Each of the two runs asked for each reply once
    assert set(answered(provider).values()) == {2}


async def test_an_agent_resumes_the_run_of_its_tool(provider: StandIn, storage: Storage) -> None:
    """The same tool call of a thread is the same run, whether the agent was cancelled in its middle
    or its tool failed; another call with the same question is another run.
    """
    asked = ("ask_document", {"question": "Who approved the dam?"})
    twice = Reply(None, "tool_calls", tool_calls=[asked, asked])
    provider.change(
        scripts={"root": PROGRAM, "agent": [twice, "Ada Conti did."]},
        faults=[Fault("hang", match="the last one")],
    )
    tool = create_rlm_tool(runnable(provider.base_url, storage))
    made = agent(provider, [tool], checkpointer=InMemorySaver())
    first = {"messages": [HumanMessage("Who?")]}
    task = asyncio.ensure_future(made.ainvoke(first, THREAD, durability="sync"))
    while hanging(provider) < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert {run.status for run in storage.runs()} == {"cancelled"}
    provider.change(faults=[])
    state = await made.ainvoke(None, THREAD, durability="sync")
    assert state["messages"][-1].content == "Ada Conti did."
    ids = [message.artifact["rlm"]["run_id"] for message in told(state["messages"])]
    assert sorted(ids) == sorted(run.run_id for run in storage.runs())
    assert len(set(ids)) == 2
    await closed(provider)
    counts = answered(provider)
    assert {counts.pop(key) for key in list(counts) if key[0] == "agent"} == {1}
    assert set(counts.values()) == {2}  # once for each of the two runs


class Rounds(TypedDict, total=False):
    question: str
    answer: Annotated[list[str], operator.add]
    rlm: Annotated[list[dict[str, Any]], operator.add]


def visits(storage: Storage) -> StateGraph[Any]:
    """A graph with a loop of two rounds, and in each two nodes by `Send`, which ask the same."""
    rlm = RLMRunnable(Scripted([final("1")]), context=DOCUMENT, storage=storage)
    made = StateGraph(Rounds)
    made.add_node("ask", as_node(rlm, collect=True))
    made.add_node("again", lambda _: {})
    made.add_conditional_edges(START, lambda state: [Send("ask", state), Send("ask", state)])
    made.add_edge("ask", "again")
    made.add_conditional_edges(
        "again",
        lambda state: (
            END if len(state["rlm"]) % 4 == 0 else [Send("ask", {"question": "Why?"})] * 2
        ),
    )
    return made


@pytest.mark.parametrize("has_checkpoints", [True, False])
async def test_each_visit_of_a_node_is_a_run_of_its_own(
    storage: Storage, has_checkpoints: bool
) -> None:
    """In a loop, by `Send`, for a second question in the same thread, and without a checkpointer."""
    made = visits(storage).compile(checkpointer=InMemorySaver() if has_checkpoints else None)
    for _ in range(2):
        state = await made.ainvoke({"question": "Why?"}, THREAD)
    assert len(storage.runs()) == 8
    assert {run["run_id"] for run in state["rlm"]} <= {run.run_id for run in storage.runs()}


async def test_an_id_in_the_configuration(storage: Storage) -> None:
    """`rlm_run_id` is the id of a runnable's run, and not that of the runs that its code causes."""
    root = Scripted([code("inner = who('Who?')", "FINAL(inner['rlm']['run_id'])")])
    inner = RLMRunnable(Scripted([final("1")]), context=DOCUMENT, name="who", storage=storage)
    outer = RLMRunnable(root, context=DOCUMENT, storage=storage, tools=[inner])
    config: Any = {"configurable": {"rlm_run_id": "mine"}}
    output = await outer.ainvoke("Who?", config)
    assert output["rlm"]["run_id"] == "mine"
    assert {run.run_id for run in storage.runs()} == {"mine", output["answer"]}
    again = await outer.ainvoke("Who?", config)
    assert again["answer"] == output["answer"]
    assert len(root.requests) == 1
    with pytest.raises(InputError, match="'mine' is stored, but as another one: its question is"):
        await outer.ainvoke("Why?", config)
