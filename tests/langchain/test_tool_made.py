"""How the tool is made, and what of a run its message and its artifact hold."""

import pytest

from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMRunnable, create_rlm_tool
from tests.engine.conftest import Scripted, code
from tests.langchain._agents import scripted
from tests.langchain.test_tool import call


def test_a_runnable_without_a_document() -> None:
    """It is refused where the tool is made: the agent's model could do nothing about it."""
    bare = RLMRunnable("offline")
    for each in (bare, bare.with_config(tags=["x"]), bare.with_retry()):
        with pytest.raises(InputError, match="the runnable has no document"):
            create_rlm_tool(each)
        create_rlm_tool(each, context_key="document")
    create_rlm_tool(bare.bind(context="a document"))


def test_only_a_tool_of_a_graph_has_an_injected_argument() -> None:
    """What exports tools, to MCP above all, takes none that have one: a tool over a bound document
    has its question alone.
    """
    plain = create_rlm_tool(scripted())
    assert list(plain.get_input_schema().model_fields) == ["question"]
    assert list(
        create_rlm_tool(scripted(), context_key="document").get_input_schema().model_fields
    ) == ["question", "runtime"]


def test_a_run_that_raises_is_told_with_its_best_answer() -> None:
    """With `on_incomplete="raise"` the agent's model is told why the run stopped, and the best
    words so far.
    """
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


def test_what_a_checkpoint_is_given_of_quotes() -> None:
    """The artifact's quotes are cut, however much of the document a run cites; their places are
    whole.
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
