"""Creating the tool, and the content of its message and artifact."""

import pytest

from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMRunnable, create_rlm_tool
from tests.engine.conftest import Scripted, code
from tests.langchain._agents import scripted
from tests.langchain.test_tool import call


def test_a_runnable_without_a_document() -> None:
    """A runnable without a document is refused when the tool is created, because the agent's model
    could not supply one.
    """
    bare = RLMRunnable("offline")
    for each in (bare, bare.with_config(tags=["x"]), bare.with_retry()):
        with pytest.raises(InputError, match="the runnable has no document"):
            create_rlm_tool(each)
        create_rlm_tool(each, context_key="document")
    create_rlm_tool(bare.bind(context="a document"))


def test_only_a_tool_of_a_graph_has_an_injected_argument() -> None:
    """A tool over a bound document has only its question, because exports, such as to MCP, do not
    support injected arguments.
    """
    plain = create_rlm_tool(scripted())
    assert list(plain.get_input_schema().model_fields) == ["question"]
    assert list(
        create_rlm_tool(scripted(), context_key="document").get_input_schema().model_fields
    ) == ["question", "runtime"]


def test_a_run_that_raises_reports_its_best_answer() -> None:
    """With `on_incomplete="raise"` the agent's model gets the reason and the best answer so far."""
    runnable = RLMRunnable(
        Scripted([code("print('look')"), "It was Ada."]),
        context="a",
        max_iterations=1,
        on_incomplete="raise",
    )
    tool = create_rlm_tool(runnable)
    message = tool.invoke(call(tool))
    assert (message.status, message.content) == (
        "error",
        "the run was stopped (max_iterations); the best answer so far: It was Ada.",
    )


def test_quotes_in_a_checkpoint_are_truncated() -> None:
    """The artifact's quotes are truncated, however much of the document a run cites; all spans are
    complete.
    """
    text = "The dam. " * 10_000
    root = Scripted(
        [
            code(
                "FINAL('so', evidence=[SpanRef('context_0', n, 90_000) for n in range(0, 3000, 10)])"
            )
        ]
    )
    tool = create_rlm_tool(RLMRunnable(root, context=text))
    artifact = tool.invoke(call(tool)).artifact
    assert len(artifact["rlm"]["citations"]) == 300
    assert len(artifact["context"]) <= 100
    assert max(len(each["page_content"]) for each in artifact["context"]) < 2_100
