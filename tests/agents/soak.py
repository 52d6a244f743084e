"""`make soak-agents`: a scripted agent makes 10,000 tool calls with outputs of 100 B to 5 MB and
planted facts, and its process is killed in the middle, again and again. No request passes the bound,
memory and checkpoints stay flat, and every fact is found afterwards at its exact place.

The model counts its requests by itself. Checkpoints are SQLite's, and what is moved is in a storage.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from rlm_integrations.langchain import RLMMiddleware
from rlm_integrations.storage import Storage
from tests.langchain._conversations import ScriptedChat, broken_pairs, calls, results

BOUND = 8_000  # tokens
FACT_EVERY = 100  # calls
LARGEST = 5_000_000
REPORT_EVERY = 100  # calls
KILLS = 5
MAX_GROWTH = 100 << 20  # bytes of memory between the first fifth and the end
THREAD: Any = {"configurable": {"thread_id": "soak"}, "recursion_limit": 10_000_000}


def size_of(number: int) -> int:
    """100 B to 5 MB, most of them small."""
    share = random.Random(number).random() ** 3
    return LARGEST if number % 1_000 == 999 else int(100 * (LARGEST / 100) ** share)


def fact_of(number: int) -> str:
    return f"The code of gate {number} is {number * 7919 % 100_003}."


def output_of(number: int) -> str:
    """The output of a call, with its fact if it has one, at a place of its own."""
    line = f"Line of call {number}: nothing happened. "
    size = size_of(number)
    filler = (line * (size // len(line) + 1))[:size]
    if number % FACT_EVERY:
        return filler
    at = random.Random(-number).randrange(len(filler) // len(line) + 1) * len(line)
    return f"{filler[:at]}{fact_of(number)} {filler[at:]}"


@tool
def work(number: int) -> str:
    """The next piece of work."""
    return output_of(number)


class Worker(BaseChatModel):
    """A model that calls the tool for the next number, whatever it has seen before, and checks each
    request that it gets.
    """

    count: int

    @property
    def _llm_type(self) -> str:
        return "worker"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self.bind(tools=tools)

    def _generate(
        self, messages: list[BaseMessage], *_: Any, tools: Any = (), **kwargs: Any
    ) -> ChatResult:
        tokens = count_tokens_approximately(messages, tools=list(tools))
        assert tokens <= BOUND, f"{tokens:,} tokens"
        assert broken_pairs(messages) == []
        last = messages[-1]
        number = int(last.tool_call_id) + 1 if isinstance(last, ToolMessage) else 0
        if number % REPORT_EVERY == 0:
            report = {"number": number, "memory": memory(), "tokens": tokens}
            print(json.dumps(report), flush=True)
        if number >= self.count:
            reply = AIMessage("Done.")
        else:
            call = {"name": "work", "args": {"number": number}, "id": str(number)}
            reply = AIMessage(f"Call {number}.", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def memory() -> int:
    """The resident memory of this process, in bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def agent_with(model: BaseChatModel, storage: Storage, folder: Path, saver: Any) -> Any:
    """The agent; its thread is in the folder."""
    memory = RLMMiddleware(
        "offline", storage=storage, keep_below=BOUND, offload_above=1_000, keep_recent=4
    )
    return create_agent(model, [work], middleware=[memory], checkpointer=saver)


def run_agent(folder: Path, count: int) -> None:
    """Begin the agent, or let it go on after its process was killed."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    with (
        Storage(folder / "runs") as storage,
        SqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver,
    ):
        agent = agent_with(Worker(count=count), storage, folder, saver)
        has_begun = bool(agent.get_state(THREAD).values)
        agent.invoke(None if has_begun else {"messages": [HumanMessage("Work.")]}, THREAD)


def check_facts(folder: Path, count: int) -> int:
    """Ask the same thread, in this process, for every fact; returns how many were asked."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    numbers = range(0, count, FACT_EVERY)
    with (
        Storage(folder / "runs") as storage,
        SqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver,
    ):
        log = storage.sources("thread:soak")
        places = {}
        for source in log.sources():
            text = log.text(source)
            for number in numbers:
                if fact_of(number) in text:
                    # The stub of a large output, which is moved later, may have the fact, too
                    places.setdefault(number, source.id)
        left = str(agent_with(ScriptedChat(), storage, folder, saver).get_state(THREAD).values)
        missing = [each for each in numbers if each not in places and fact_of(each) not in left]
        assert missing == [], f"lost: {missing}"
        asks = [
            calls(
                ("ask_context", {"question": f"What is the code of gate {number}?", "ids": [id_]}),
                first=10**6 + number,
            )
            for number, id_ in places.items()
        ]
        search = calls(("search_context", {"pattern": fact_of(0)}), first=10**7)
        model = ScriptedChat(*asks, search, "Done.")
        agent = agent_with(model, storage, folder, saver)
        answers: list[ToolMessage] = []
        for part in agent.stream(
            {"messages": [HumanMessage("Now answer.")]}, THREAD, stream_mode="updates"
        ):
            answers += results(part.get("tools", {}).get("messages", []))
        assert max(model.tokens) <= BOUND
        for number, answer in zip(places, answers, strict=False):
            quotes = answer.artifact["context"]
            places_of = [each["metadata"]["spans"][0] for each in quotes]
            exact = [
                log.text(source)[place["start"] : place["end"]]
                for place in places_of
                for source in log.sources([int(place["source"].rpartition("-")[2])])
            ]
            assert fact_of(number) in exact, f"fact {number}: {answer.text[:300]}"
        assert places[0] in answers[-1].text
        assert storage.check().is_sound
        print(f"{len(places)} facts were asked for, of {len(log.sources()):,} texts")
        return len(places)


def checkpoint_bytes(folder: Path) -> list[int]:
    """The sizes of all checkpoints in order."""
    with sqlite3.connect(folder / "checkpoints.sqlite") as connection:
        rows = connection.execute(
            "SELECT length(checkpoint) FROM checkpoints ORDER BY checkpoint_id"
        )
        return [row[0] for row in rows]


def main() -> None:
    """Run, kill and check; the arguments are the number of calls and a seed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    chance = random.Random(seed)
    moments = sorted(chance.randrange(count) for _ in range(KILLS))
    print(f"seed {seed}, killed about calls {moments}")
    started = time.monotonic()
    reports: list[dict[str, int]] = []
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        while True:
            program = "from pathlib import Path; from tests.agents.soak import run_agent; "
            program += f"run_agent(Path({folder!r}), {count})"
            child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
            assert child.stdout is not None
            for line in child.stdout:
                reports.append(json.loads(line))
                if moments and reports[-1]["number"] >= moments[0]:
                    moments.pop(0)
                    threading.Timer(chance.random(), child.kill).start()
            if child.wait() == 0:
                break
            assert child.returncode == -signal.SIGKILL, child.returncode
            killed += 1
        sizes = checkpoint_bytes(Path(folder))
        print(f"{count:,} calls in {time.monotonic() - started:.0f} s, killed {killed} times")
        print(f"checkpoints: {len(sizes):,}, the largest has {max(sizes):,} bytes")
        assert max(sizes) < 8 * BOUND
        peak = max(each["memory"] for each in reports)
        first = max(each["memory"] for each in reports if each["number"] <= max(count // 5, 250))
        print(f"memory: {first >> 20} MB in the first fifth, {peak >> 20} MB at most")
        assert peak - first < MAX_GROWTH
        check_facts(Path(folder), count)


if __name__ == "__main__":
    main()
