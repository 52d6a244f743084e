"""The valid shapes of a question, and the errors for others."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

from rlm_integrations import RLM
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.faces.document import SharedDocument
from rlm_integrations.langchain import RLMRunnable, create_rlm_tool
from rlm_integrations.langchain.inputs import RLMInput, asked, bound_to
from rlm_integrations.records import Limits
from tests.engine.conftest import Scripted, code

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
    """The question is a string, a value of a dict, or the last human message of messages or prompt
    values.
    """
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
def test_an_input_without_a_question(given: Any, said: str) -> None:
    """Other inputs, such as a bare list of documents, are errors that name the input's type and the
    valid shapes.
    """
    with pytest.raises(InputError, match=f"(?s){said}.*question"):
        asked(given, BOUND)


def test_a_question_without_a_document() -> None:
    """If neither the input nor the runnable has a document, the error says how to pass one."""
    with pytest.raises(InputError, match=r"no document for the question 'Who\?'.*with_context"):
        asked("Who?", None)


CONTEXTS = [
    ("a text", "a string of 6 characters"),
    (Document("a text"), "a Document"),
    ([Document("a"), "b"], "a list of 2 items"),
    (Path("somewhere/secret.txt"), "a file"),
]


@pytest.mark.parametrize(("context", "shown"), CONTEXTS, ids=[shown for _, shown in CONTEXTS])
def test_traces_show_only_the_size_of_a_document(context: Any, shown: str) -> None:
    """Traces show the document's size, never its text or path; the input's own document is used
    before the bound one.
    """
    found = asked({"question": "Who?", "context": context}, BOUND)
    assert found.preview == {"question": "Who?", "context": shown}
    assert found.is_ours


def test_a_corpus_is_a_document() -> None:
    """A user's corpus is not closed with the question."""
    with Corpus.build("a text") as corpus:
        found = asked({"question": "Who?", "context": corpus}, BOUND)
        assert found.preview["context"] == "<Corpus of 1 sources, 6 characters>"
        assert not found.is_ours


def test_the_schema_of_inputs() -> None:
    """The input schema has the keys, and accepts every shape that is JSON."""
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
    """A bound document is read once, even by concurrent questions; a failed read is repeated."""
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


async def test_cancelling_a_question_keeps_the_document() -> None:
    """Cancelling the first question that waits for a document does not affect the others."""
    import asyncio

    bound = SharedDocument("a text" * 100_000)
    first, second = (asyncio.ensure_future(bound.corpus(Limits())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).characters == 600_000
    await asyncio.wait([first])
    assert first.cancelled()


@pytest.mark.parametrize("is_bound", [True, False])
async def test_a_folder_is_cited_by_path_and_line(tmp_path: Path, is_bound: bool) -> None:
    """A folder or a dict is a context, bound or in the input; each Document of the evidence has the
    path and the line as its `location`, and the tool shows it.
    """
    (tmp_path / "app.py").write_text("x = 1\n# The port is 8080.\n")
    root = Scripted([code("FINAL('8080', evidence=[cite('The port is 8080.')])")])
    for context in (tmp_path, {"app.py": tmp_path / "app.py"}):
        runnable = RLMRunnable.from_rlm(RLM(root))
        output = await (
            runnable.with_context(context).ainvoke("Which port?")
            if is_bound
            else runnable.ainvoke({"question": "Which port?", "context": context})
        )
        assert [each.metadata["location"] for each in output["context"]] == ["app.py:2"]
    tool = create_rlm_tool(runnable.with_context(context))
    assert "[1] app.py:2 The port is 8080." in str(await tool.ainvoke({"question": "Which port?"}))
