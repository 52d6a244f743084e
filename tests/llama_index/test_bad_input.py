"""Invalid input is refused before anything is charged, with messages that say what to do."""

from copy import copy
from typing import Any

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX, QUESTION, finder

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.schema import ImageNode, QueryBundle, TextNode
from pydantic import BaseModel

from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine, RLMSynthesizer

DOCUMENT = Document(text="a document")


class Answer(BaseModel):
    text: str


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({}, r"one of documents, nodes, index, retriever; given: none"),
        ({"documents": DOCUMENT, "nodes": [DOCUMENT]}, "given: documents, nodes"),
        ({"documents": []}, "there are no documents"),
        ({"documents": ""}, "there are no documents"),
        ({"nodes": []}, "there are no documents"),
        ({"index": "an index"}, "expected BaseIndex, not str"),
        ({"retriever": DOCUMENT}, "expected BaseRetriever, not Document"),
        (
            {"documents": DOCUMENT, "store": "shared"},
            r"store must be a store of a Storage, as in storage.store\('findings'\), not str",
        ),
        (
            {"documents": DOCUMENT, "stored": "shared"},
            "there is no option 'stored'; there are documents, nodes, .*store_mode",
        ),
        ({"documents": DOCUMENT, "max_iterations": 0}, "at least 1"),
        ({"documents": DOCUMENT, "root_llm": "offline"}, "use llm="),
        ({"documents": DOCUMENT, "llm": 5}, "a model is a name"),
        ({"documents": DOCUMENT, "output_cls": dict}, "derived from pydantic's BaseModel"),
        ({"documents": DOCUMENT, "output_cls": Answer, "output_type": int}, "pass one of them"),
    ],
)
def test_arguments_of_an_engine(options: Any, hint: str) -> None:
    """Invalid arguments are refused by the constructor, with or without a model."""
    with pytest.raises(InputError, match=hint):
        RLMQueryEngine.from_defaults(**{"llm": finder(), **options})
    if "llm" not in options:
        with pytest.raises(InputError, match=hint):
            RLMQueryEngine.from_defaults(**options)


def test_from_rlm_needs_an_rlm() -> None:
    """`from_rlm` accepts only an RLM, and documents."""
    with pytest.raises(InputError, match="expected RLM, not Scripted"):
        RLMQueryEngine.from_rlm(finder(), DOCUMENT)
    with pytest.raises(
        InputError, match=r"there is no option 'storemode'; there are empty_response, .*store_mode"
    ):
        RLMSynthesizer(finder(), storemode="none")


@pytest.mark.parametrize("question", ["", "  \n", None, 5])
@pytest.mark.parametrize("api", ["sync", "async"])
async def test_questions(question: Any, api: str) -> None:
    """An empty or invalid question is refused by each method, even if a template would make it
    non-empty.
    """
    root = finder()
    engine = RLMQueryEngine.from_defaults(DOCUMENT, llm=root)
    query = QueryBundle(question)
    for name in ("query", "retrieve", "synthesize"):
        more = [[DOCUMENT]] if name == "synthesize" else []
        with pytest.raises(InputError, match="the question must be a non-empty string"):
            _ = (
                getattr(engine, name)(query, *more)
                if api == "sync"
                else await getattr(engine, f"a{name}")(query, *more)
            )
    assert root.requests == []


@pytest.mark.parametrize("documents", [{"text"}, b"text", 5, [5], [DOCUMENT, None]])
async def test_documents_of_the_wrong_kind(documents: Any) -> None:
    """A document that is not text is refused at the first question, with what to pass instead."""
    with pytest.raises(InputError, match=r"pass|decode"):
        await RLMQueryEngine.from_defaults(documents, llm=finder()).aquery(QUESTION)


@pytest.mark.parametrize(
    "documents",
    [iter([]), " \n", [Document(text="")], [ImageNode(image="aGF5"), TextNode(text="\t")]],
)
@pytest.mark.parametrize("api", ["sync", "async"])
async def test_nothing_to_read(documents: Any, api: str) -> None:
    """Documents without text result in LlamaIndex's empty response, without a call."""
    root = finder()
    engine = RLMQueryEngine.from_defaults(copy(documents), llm=root)
    response = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    assert (str(response), response.source_nodes, root.requests) == ("Empty Response", [], [])


async def test_images_without_text_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A node with an image and no text is not read, and a warning is logged."""
    engine = RLMQueryEngine.from_defaults([DOCUMENT, ImageNode(image="aGF5")], llm=finder())
    await engine.aquery(QUESTION)
    assert caplog.messages == [
        "1 of 2 nodes are images without text, which are not shown to models"
    ]
