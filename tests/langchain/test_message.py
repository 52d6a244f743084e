"""Answers as messages: each citation is an annotation with its statement and its quote."""

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage

from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMRunnable, answer_message
from tests.engine.conftest import Scripted, code

TEXT = "The bridge was built in 1512. It burned in 1530."
DOCUMENT = Document(id="c", page_content=TEXT, metadata={"source": "c.txt"})
REPLY = "FINAL('Built in 1512 [1], gone in 1530 [2].', evidence=[cite('built in 1512'), cite('burned in 1530'), cite('bridge')])"


async def test_annotations_name_the_statement_and_the_quote() -> None:
    """`start_index` and `end_index` are of the answer, `extras` of the document; a citation without
    a number is of the whole answer.
    """
    runnable = RLMRunnable(Scripted([code(REPLY)]), context=DOCUMENT)
    message = await runnable.as_message().ainvoke("When?")
    assert isinstance(message, AIMessage)
    (block,) = message.content_blocks
    assert block["type"] == "text"
    text = block["text"]
    shown = []
    for each in block["annotations"]:
        assert each["type"] == "citation"
        place = each["extras"]
        assert each["title"] == "c.txt"
        assert TEXT[place["start"] : place["end"]] == each["cited_text"]
        shown.append((text[each["start_index"] : each["end_index"]], each["cited_text"]))
    assert shown == [
        ("Built in 1512", "built in 1512"),
        ("gone in 1530", "burned in 1530"),
        (text, "bridge"),
    ]
    assert message.response_metadata["stop_reason"] == "final"
    assert message.text == "Built in 1512 [1], gone in 1530 [2]."


def test_only_outputs_of_the_runnable_are_messages() -> None:
    """Something else is refused."""
    with pytest.raises(InputError, match="whole output is needed"):
        answer_message({"answer": "x"})
