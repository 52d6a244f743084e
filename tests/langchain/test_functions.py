"""LangChain's tools, retrievers and runnables as functions of the REPL."""

from typing import Annotated, Any, Literal

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.prebuilt import InjectedState
from pydantic import BaseModel, Field

from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMRunnable, create_rlm_tool
from tests.engine.conftest import Scripted, code
from tests.langchain.conftest import Tracer
from tests.langchain.test_trace import APIS, through


@tool
def population(town: str, year: int = 1911, kind: Literal["all", "adult"] = "all") -> int:
    """How many people live there."""
    return {"Ravenna": 155_000}.get(town, 0) + year - 1911


@tool
async def asked_later(town: str) -> str:
    """An asynchronous tool."""
    return f"later {town}"


def _both(town: str) -> str:
    return f"sync {town}"


async def _aboth(town: str) -> str:
    return f"async {town}"


both_ways = StructuredTool.from_function(_both, _aboth, name="both-ways", description="Either way.")


class Weather(BaseTool):
    """A tool with its own class."""

    name: str = "weather"
    description: str = "The weather."

    def _run(self, town: str) -> dict[str, Any]:
        return {"town": town, "rain": [1, 2]}


class Places(BaseRetriever):
    """Finds documents."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"about {query}", id="1", metadata={"page": 7})]


def run(*lines: str, tools: list[Any]) -> tuple[RLMRunnable, Scripted]:
    root = Scripted([code(*lines)])
    return RLMRunnable(root, context="a document", tools=tools), root


@APIS
async def test_tools_are_called_by_their_names(api: str) -> None:
    """Sync and async tools, of either class, are called by name with positional or keyword
    arguments, with every API method; results arrive as plain data.
    """
    runnable, _ = run(
        "first = population('Ravenna')",
        "second = population(town='Ravenna', year=1912)",
        "FINAL(str([first, second, asked_later('Ulm'), both_ways('Ulm')[-3:], weather('Ulm')['rain']]))",
        tools=[population, asked_later, both_ways, Weather()],
    )
    output = await through(api, runnable, "Who?")
    assert output["answer"] == "[155000, 155001, 'later Ulm', 'Ulm', [1, 2]]"


@APIS
async def test_retrievers_and_runnables(api: str) -> None:
    """A retriever takes a query and returns dicts; any other runnable takes its input."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=3))
    store.add_documents([Document("the dam", metadata={"page": 1})])
    runnable, root = run(
        "found = places('dams')",
        "more = vector_store_retriever(query='dam')",
        "FINAL(f\"{found[0]['page_content']} {found[0]['metadata']['page']} {more[0]['page_content']} {shout('a')}\")",
        tools=[
            Places(),
            store.as_retriever(),
            RunnableLambda(lambda text: text.upper(), name="shout").with_config(tags=["x"]),
        ],
    )
    assert (await through(api, runnable, "Who?"))["answer"] == "about dams 7 the dam A"
    assert "places(query: str)" in root.requests[0].messages[0].content


def test_tools_in_the_system_prompt() -> None:
    """The system prompt has the tools' names, arguments with types and defaults, and
    descriptions.
    """
    runnable, root = run("FINAL('so')", tools=[population, both_ways])
    runnable.invoke("Who?")
    system = root.requests[0].messages[0].content
    assert (
        "population(town: str, year: int = 1911, kind: Literal['all', 'adult'] = 'all')" in system
    )
    assert "How many people live there." in system
    assert "both_ways(town: str)" in system


@APIS
async def test_their_runs_are_children_of_the_run(api: str) -> None:
    """A tracer sees each call below the run that made it."""
    tracer = Tracer()
    runnable, _ = run(
        "population('Ravenna'); asked_later('Ulm'); places('x')",
        "FINAL('so')",
        tools=[population, asked_later, Places()],
    )
    await through(api, runnable, "Who?", {"callbacks": [tracer]})
    (root,) = tracer.roots
    assert {"population", "asked_later", "Places"} <= {child.name for child in root.child_runs}


async def test_exceptions_of_a_tool_raise_in_the_code() -> None:
    """A tool's exception, and an invalid argument, raise in the REPL with the tool's own
    message.
    """

    @tool
    def broken(town: str) -> str:
        """Fails."""
        raise ToolException(f"no such town: {town}")

    runnable, _ = run(
        "try:\n    broken('Ulm')\nexcept Exception as error:\n    first = str(error)",
        "try:\n    population(town=[])\nexcept Exception as error:\n    second = str(error)",
        "FINAL(first + '|' + second[:15])",
        tools=[broken, population],
    )
    assert (await runnable.ainvoke("Who?"))[
        "answer"
    ] == "ToolException: broken: no such town: Ulm|ValidationError"


class Given(BaseModel):
    town: str = Field(description="Where.")
    user: Annotated[str, InjectedToolArg]


def test_arguments_of_an_agent_are_refused() -> None:
    """A tool with a required injected argument is refused at once, because code cannot pass it; an
    optional one is omitted.
    """

    @tool(args_schema=Given)
    def secret(town: str, user: str) -> str:
        """Needs a user."""
        return user

    @tool
    def stateful(town: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Needs a state."""
        return town

    for each, name in ((secret, "user"), (stateful, "state")):
        with pytest.raises(InputError, match=f"takes {name} from an agent"):
            run("FINAL('so')", tools=[each])
    inner = create_rlm_tool(
        RLMRunnable(Scripted([code("FINAL('inner')")]), context="a"), context_key="document"
    )
    runnable, _ = run("FINAL(ask_document('Who?'))", tools=[inner])
    assert runnable.invoke("Who?")["answer"] == "inner"


def test_tools_without_a_schema() -> None:
    """A tool without a schema takes one string."""
    runnable, _ = run("FINAL(shout('a'))", tools=[Tool("shout", str.upper, "Shouts.")])
    assert runnable.invoke("Who?")["answer"] == "A"


def test_names_that_are_taken() -> None:
    """Reserved names are refused, as for functions."""
    with pytest.raises(InputError, match="'cite'"):
        run("FINAL('so')", tools=[RunnableLambda(str, name="cite")])
