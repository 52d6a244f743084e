"""A graph with a checkpointer in a file, and a program that begins it or lets it go on."""

import json
import pickle
import sys
from collections import defaultdict
from pathlib import Path
from threading import Lock
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from rlm_integrations import OpenAILM
from rlm_integrations.langchain import RLMRunnable, as_node
from rlm_integrations.storage import Storage
from tests.engine.conftest import code

DOCUMENT = "The Ravenna dam was approved by Ada Conti."
PROGRAM = [
    code("parts = llm_batch([f'part {number}' for number in range(3)])"),
    code("last = llm_query('the last one')"),
    code("FINAL(f'{len(parts)} parts, {last}')"),
]


class State(TypedDict, total=False):
    """The state: both nodes ask the same question."""

    question: str
    first: str
    answer: str
    rlm: dict[str, Any]
    first_rlm: dict[str, Any]


class FileSaver(InMemorySaver):
    """Checkpoints in a file, which a killed process leaves behind."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._saving = Lock()
        if path.exists():
            storage, writes, blobs = pickle.loads(path.read_bytes())
            self.storage.update({key: defaultdict(dict, spaces) for key, spaces in storage.items()})
            self.writes.update(writes)
            self.blobs.update(blobs)

    def put(self, *args: Any, **kwargs: Any) -> Any:
        """Keep a checkpoint."""
        config = super().put(*args, **kwargs)
        self._save()
        return config

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        """Keep the writes of a task."""
        super().put_writes(*args, **kwargs)
        self._save()

    def _save(self) -> None:
        with self._saving:
            storage = {key: dict(spaces) for key, spaces in self.storage.items()}
            new = self._path.with_suffix(".new")
            new.write_bytes(pickle.dumps((storage, dict(self.writes), dict(self.blobs))))
            new.replace(self._path)


def model(base_url: str, name: str) -> OpenAILM:
    """A model of the stand-in server."""
    return OpenAILM(name, base_url=base_url, api_key="none")


def runnable(base_url: str, storage: Storage) -> RLMRunnable:
    """The runnable of all nodes here."""
    return RLMRunnable(
        model(base_url, "root"), model(base_url, "sub"), context=DOCUMENT, storage=storage
    )


def graph(base_url: str, storage: Storage, saver: InMemorySaver) -> Any:
    """Two nodes, one after the other, that ask the same."""
    rlm = runnable(base_url, storage)
    made = StateGraph(State)
    made.add_node("first_ask", as_node(rlm, answer_key="first", rlm_key="first_rlm"))
    made.add_node("ask", as_node(rlm))
    made.add_edge(START, "first_ask")
    made.add_edge("first_ask", "ask")
    made.add_edge("ask", END)
    return made.compile(checkpointer=saver)


def main() -> None:
    """Begin the graph, or let it go on, and print its state; the arguments are a JSON object."""
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    with Storage(folder / "runs") as storage:
        made = graph(given["base_url"], storage, FileSaver(folder / "checkpoints"))
        config = {"configurable": {"thread_id": "thread 1"}}
        asked = None if given["goes_on"] else {"question": "Who approved the dam?"}
        print(json.dumps(made.invoke(asked, config, durability="sync")))


if __name__ == "__main__":
    main()
