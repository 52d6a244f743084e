"""Shared by the tests of the retriever, the tools and the node: a document, a run over it that
keeps findings, and an agent.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from rlm_integrations import SharedStore, SpanRef
from rlm_integrations.corpus import Corpus
from rlm_integrations.langchain import RLMRunnable
from tests.engine.conftest import Scripted, code
from tests.standin import Ask, Reply, StandIn

QUOTE = "The Ravenna dam was approved by Ada Conti."
COST = "It cost 4,200,000 lire."
TEXTS = [
    "Rain fell for most of the year. " * 40 + QUOTE + " Then came winter. " * 20,
    "Of money. " * 30 + COST + " That was much. " * 30,
]
DOCUMENTS = [
    Document(TEXTS[0], id="minutes", metadata={"page": 7, "box": {"shelf": [1, 2]}}),
    Document(TEXTS[1], metadata={"page": 8}),
]
QUESTION = "Who approved the dam?"
ANSWER = "Ada Conti approved it."
PROGRAM = code(
    "replies = llm_batch([f'part {number}' for number in range(3)])",
    f"span = cite({QUOTE!r})",
    "kept = store.create('claim', 'who approved the dam', 'Ada Conti approved the Ravenna dam.', backrefs=[span], tags=['dam'])",
    f"store.create('summary', 'the dam', {{'approved by': 'Ada Conti'}}, backrefs=[span, cite({COST!r})], parents=[kept])",
    f"FINAL({ANSWER!r}, evidence=[span])",
)
SUB_CALLS = 3
LARGE_ROOT = code(f"FINAL({ANSWER!r}, evidence=[cite({QUOTE!r})])")
ASKED = Reply(None, "tool_calls", tool_calls=[("ask_document", {"question": QUESTION})])
END = "That is all that I know."


def findings() -> SharedStore:
    """A store over `DOCUMENTS` as a run may leave it."""
    store = SharedStore(Corpus.build(DOCUMENTS))
    worker = store.worker("worker_A")
    places = [
        SpanRef(f"context_{number}", text.index(quote), text.index(quote) + len(quote))
        for number, (text, quote) in PLACES.items()
    ]
    claim = worker.create(
        "claim",
        "who approved the dam",
        "Ada Conti approved the Ravenna dam.",
        backrefs=places[:1],
        tags=["dam", "people"],
    )
    worker.create(
        "claim",
        "what the dam cost",
        "The dam cost 4,200,000 lire.",
        backrefs=places[1:],
        tags=["dam", "money"],
    )
    store.worker("root").create(
        "summary",
        "all of the dam",
        {"who": "Ada Conti", "lire": 4_200_000},
        backrefs=places,
        parents=[claim],
    )
    worker.create("note", "the weather", "It rained for most of the year.")
    return store


PLACES = {0: (TEXTS[0], QUOTE), 1: (TEXTS[1], COST)}


def scripted(context: Any = DOCUMENTS, **options: Any) -> RLMRunnable:
    """A runnable whose root, in this process, writes `PROGRAM`."""
    return RLMRunnable(Scripted([PROGRAM]), context=context, **options)


def chat(server: StandIn, name: str, **options: Any) -> ChatOpenAI:
    """A LangChain model over real HTTP."""
    return ChatOpenAI(model=name, base_url=server.base_url, api_key="sk-0123456789", **options)


async def closed(server: StandIn) -> None:
    """LangChain's asynchronous client for this address, closed at the end if only an agent used it;
    otherwise it would stay open with its loop.
    """
    await chat(server, "agent").root_async_client.close()


def over_http(server: StandIn, context: Any = DOCUMENTS, **options: Any) -> RLMRunnable:
    """A runnable whose models are LangChain models over real HTTP."""
    return RLMRunnable(chat(server, "root"), chat(server, "sub"), context=context, **options)


def agent(server: StandIn, tools: Sequence[Any], **options: Any) -> Any:
    """A LangChain agent over real HTTP; its replies are the script of the model "agent"."""
    return create_agent(chat(server, "agent"), tools, **options)


def root(_ask: Ask) -> str:
    """The replies of the model "root"."""
    return PROGRAM


SCRIPTS: dict[str, Any] = {"agent": [ASKED, END], "root": root}


def told(messages: Sequence[BaseMessage]) -> list[ToolMessage]:
    """The tools' messages to the agent."""
    return [message for message in messages if isinstance(message, ToolMessage)]


def large() -> str:
    """A document of 50 MB, with `QUOTE` at its end."""
    return f"{WEATHER * 2_400_000}{QUOTE}"


WEATHER = "The weather is fine. "


def kept(saver: InMemorySaver) -> bytes:
    """Everything in the checkpoints."""
    rows = [
        row
        for spaces in saver.storage.values()
        for checkpoints in spaces.values()
        for row in checkpoints.values()
    ]
    writes = [write[2][1] for of_task in saver.writes.values() for write in of_task.values()]
    return b"".join(
        [
            *(part[1] for row in rows for part in row[:2]),
            *(blob for _, blob in saver.blobs.values()),
            *writes,
        ]
    )


class Parents(BaseCallbackHandler):
    """Records the parent of each run."""

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.of: dict[str, str] = {}

    def _begun(self, name: str, run_id: Any, parent_run_id: Any) -> None:
        self.names[run_id] = name
        self.of[name] = self.names.get(parent_run_id, "")

    def on_chain_start(
        self, *_: Any, run_id: Any, parent_run_id: Any = None, name: str = "", **kwargs: Any
    ) -> None:
        self._begun(name, run_id, parent_run_id)

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        *_: Any,
        run_id: Any,
        parent_run_id: Any = None,
        **kwargs: Any,
    ) -> None:
        self._begun(serialized["name"], run_id, parent_run_id)

    def on_chat_model_start(
        self, *_: Any, run_id: Any, parent_run_id: Any = None, name: str = "", **kwargs: Any
    ) -> None:
        self._begun(name, run_id, parent_run_id)

    def on_retriever_start(
        self, *_: Any, run_id: Any, parent_run_id: Any = None, name: str = "", **kwargs: Any
    ) -> None:
        self._begun(name, run_id, parent_run_id)


both = pytest.mark.parametrize("asynchronously", [False, True], ids=["sync", "async"])
