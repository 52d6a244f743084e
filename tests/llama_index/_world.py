"""Shared by the tests of the face: a document with a needle, a root model that finds it, and
helpers for the sync and the async API.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.engine.conftest import Scripted, code
from tests.standin import Ask, answer_to

NO_LLAMA_INDEX = "LlamaIndex's openai package needs openai 2"

NEEDLE = "The needle is 42."
HAY, STRAW = "hay and more hay. " * 300, "straw upon straw. " * 300
TEXT = f"{HAY}{NEEDLE} {STRAW}"
AT = len(HAY)
ANSWER = "It is 42."
QUESTION = "What is the needle?"

FINDS = code(
    f"span = cite({NEEDLE!r})",
    'store.create("note", "the needle", "It is 42.", backrefs=[span], tags=["found"])',
    f"FINAL({ANSWER!r}, evidence=[span])",
)
ASKS = code(
    'replies = llm_batch([f"q{n}" for n in range(4)])',
    f'FINAL("|".join(replies), evidence=[cite({NEEDLE!r})])',
)
ASKED = "|".join(answer_to(f"q{n}") for n in range(4))


def finder(*script: str) -> Scripted:
    """A root model that finds the needle, or follows another script."""
    return Scripted(script or [FINDS])


def questions(root: Scripted) -> list[str]:
    """The questions that a root received."""
    return [request.query for request in root.requests if request.role == "root"]


def root_or_sub(ask: Ask) -> str:
    """The script of a provider's model that is root and sub-model: only a root has a system
    message.
    """
    return ASKS if ask.body["messages"][0]["role"] == "system" else answer_to(ask.prompt)


def scripted_llm(reply: Callable[[str], Any] | None = None, **options: Any) -> Any:
    """A LlamaIndex LLM in this process: as root it finds the needle, otherwise it replies with
    `reply` of its prompt.
    """
    from llama_index.core.llms import ChatMessage
    from llama_index.core.llms.mock import MockFunctionCallingLLM

    def generate(messages: Sequence[Any]) -> Any:
        is_root = messages[0].role.value == "system" and "REPL" in (messages[0].content or "")
        said = FINDS if is_root or reply is None else reply(messages[-1].content or "")
        return said if isinstance(said, ChatMessage) else ChatMessage(said, role="assistant")

    return MockFunctionCallingLLM(response_generator=generate, **options)


def calling_llm(tool: str) -> Any:
    """An agent's LLM: it calls the tool once and then repeats the tool's output."""
    from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
    from llama_index.core.llms.mock import MockFunctionCallingLLM

    def generate(messages: Sequence[Any], **_: Any) -> Any:
        results = [message.content for message in messages if message.role.value == "tool"]
        if results:
            return ChatMessage(f"It says: {results[0]}", role="assistant")
        return ChatMessage(
            role="assistant",
            blocks=[
                ToolCallBlock(tool_call_id="1", tool_name=tool, tool_kwargs={"input": QUESTION})
            ],
        )

    return MockFunctionCallingLLM(response_generator=generate)


def splitter(chunk_size: int = 256, chunk_overlap: int = 20) -> Any:
    """LlamaIndex's usual splitter, without NLTK, which refuses to read its own files if an
    installer has hard-linked them.
    """
    from llama_index.core.node_parser import SentenceSplitter

    return SentenceSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        chunking_tokenizer_fn=re.compile(r"[^.]+\.?|\.").findall,
    )


def needles(nodes: Sequence[Any]) -> list[str]:
    """The texts of nodes."""
    return [node.node.get_content() for node in nodes]


async def ask(engine: Any, api: str, question: str = QUESTION) -> Any:
    """The engine's response with this API; the sync one is called inside a running loop, as in a
    notebook.
    """
    return engine.query(question) if api == "sync" else await engine.aquery(question)
