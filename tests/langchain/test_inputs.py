"""What may be asked, in which shape, and what gets a clear error."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.faces.document import SharedDocument
from rlm_integrations.langchain.inputs import RLMInput, asked, bound_to
from rlm_integrations.records import Limits

BOUND = bound_to("a document")
CONVERSATION = [
    SystemMessage("s"),
    HumanMessage("first?"),
    AIMessage("a"),
    HumanMessage("Who?"),
    AIMessage("b"),
]
BLOCKS = HumanMessage(
    [
        {"type": "text", "text": "Who"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "?"},
    ]
)

QUESTIONS = [
    "Who?",
    {"question": "Who?"},
    {"input": "Who?"},
    {"question": "Who?", "input": "not this"},
    {"question": None, "input": "Who?"},
    {"messages": CONVERSATION},
    {"question": CONVERSATION},
    CONVERSATION,
    tuple(CONVERSATION),
    HumanMessage("Who?"),
    [("system", "s"), ("human", "Who?")],
    [{"role": "user", "content": "Who?"}],
    [BLOCKS],
    PromptTemplate.from_template("{x}?").invoke({"x": "Who"}),
    ChatPromptTemplate.from_messages([("system", "s"), ("human", "{x}?")]).invoke({"x": "Who"}),
]


@pytest.mark.parametrize("given", QUESTIONS, ids=range(len(QUESTIONS)))
def test_a_question_in_every_shape(given: Any) -> None:
    """A text, a dict, messages and what prompts give: the last human text is the question."""
    found = asked(given, BOUND)
    assert (found.question, found.document, found.is_ours) == ("Who?", BOUND, False)


WRONG = [
    ([Document("text")], "a list of Document"),
    ([], "an empty list"),
    (["a", "b"], "a list of str"),
    ({"context": "text"}, "the input"),
    ({}, "the input"),
    (None, "the input"),
    (5, "a int"),
    ([AIMessage("a")], "no human message"),
    ([("nobody", "x")], "a list that is not a valid conversation"),
    (AIMessage("a"), "no human message"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_question(given: Any, said: str) -> None:
    """A bare list of documents above all: the error says what it is and what can be given."""
    with pytest.raises(InputError, match=f"(?s){said}.*question"):
        asked(given, BOUND)


def test_a_question_without_a_document() -> None:
    """Where neither the input nor the runnable has one, the error says how to give it."""
    with pytest.raises(InputError, match=r"no document for the question 'Who\?'.*with_context"):
        asked("Who?", None)


CONTEXTS = [
    ("a text", "a string of 6 characters"),
    (Document("a text"), "a Document"),
    ([Document("a"), "b"], "a list of 2 items"),
    (Path("somewhere/secret.txt"), "a file"),
]


@pytest.mark.parametrize(("context", "shown"), CONTEXTS, ids=[shown for _, shown in CONTEXTS])
def test_what_traces_show_of_a_document(context: Any, shown: str) -> None:
    """How much there is of it, never a word and never a path; the input's own document goes before
    the bound one.
    """
    found = asked({"question": "Who?", "context": context}, BOUND)
    assert found.preview == {"question": "Who?", "context": shown}
    assert found.is_ours


def test_a_corpus_is_a_document() -> None:
    """It stays whose it is, and is not let go of with the question."""
    with Corpus.build("a text") as corpus:
        found = asked({"question": "Who?", "context": corpus}, BOUND)
        assert found.preview["context"] == "<Corpus of 1 sources, 6 characters>"
        assert not found.is_ours


def test_the_schema_of_inputs() -> None:
    """It knows the keys, and takes every shape that is JSON."""
    schema = RLMInput.model_json_schema()
    assert {"question", "input", "messages", "context"} <= set(
        str(schema).replace("'", " ").split()
    )
    for given in (
        "Who?",
        {"question": "Who?", "context": "text"},
        {"messages": [{"role": "user", "content": "Who?"}]},
    ):
        assert RLMInput.model_validate(given).root == given


async def test_a_bound_document_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once; what could not be read is tried again."""
    import asyncio

    reads: list[object] = []
    build = Corpus.build

    def counted(context: object, **options: Any) -> Corpus:
        reads.append(context)
        if len(reads) == 1:
            raise ContextError("not now")
        return build(context, **options)

    monkeypatch.setattr(Corpus, "build", counted)
    bound = SharedDocument("a text")
    with pytest.raises(ContextError):
        await bound.corpus(Limits())
    first, *others = await asyncio.gather(*(bound.corpus(Limits()) for _ in range(5)))
    assert all(each is first for each in others)
    assert reads == ["a text", "a text"]


async def test_one_who_gives_up_takes_the_document_from_nobody() -> None:
    """Cancelling the first that waits for a document leaves it to the others."""
    import asyncio

    bound = SharedDocument("a text" * 100_000)
    first, second = (asyncio.ensure_future(bound.corpus(Limits())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).characters == 600_000
    assert first.cancelled()
