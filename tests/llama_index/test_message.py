"""Answers as messages, and what an agent's model reads of an answer that cites in place."""

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.base.llms.types import CitationBlock, TextBlock

from rlm_integrations.llama_index import RLMQueryEngine, as_query_engine_tool, cited_message
from tests.engine.conftest import Scripted, code

TEXT = "The bridge was built in 1512. It burned in 1530."
ANSWER = "Gone in 1530 [2], built in 1512 [1]."
REPLY = (
    f"FINAL({ANSWER!r}, evidence=[cite('built in 1512'), cite('burned in 1530'), cite('bridge')])"
)


def engine_of() -> RLMQueryEngine:
    """An engine whose answer cites two of its three pieces of evidence in place."""
    document = Document(id_="c", text=TEXT, metadata={"file_name": "c.txt"})
    return RLMQueryEngine.from_defaults(document, llm=Scripted([code(REPLY)]))


async def test_a_message_has_a_block_for_each_number() -> None:
    """The answer is followed by the quotes that it refers to, in the order of their numbers."""
    response = await engine_of().aquery("When?")
    answer, *cited = cited_message(response).blocks
    assert isinstance(answer, TextBlock) and answer.text == ANSWER
    assert [
        (each.cited_content.text, each.source, each.title, each.additional_location_info)
        for each in cited
        if isinstance(each, CitationBlock)
    ] == [
        ("built in 1512", "c", "c.txt", {"number": 1, "start": 15}),
        ("burned in 1530", "c", "c.txt", {"number": 2, "start": 33}),
    ]


async def test_a_tool_gives_the_quotes_with_their_numbers() -> None:
    """The model that called the tool reads the answer and what its numbers stand for."""
    output = await as_query_engine_tool(engine_of()).acall(input="When?")
    assert output.content == f"{ANSWER}\n[1] built in 1512\n[2] burned in 1530"
