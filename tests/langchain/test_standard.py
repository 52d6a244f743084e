"""LangChain's own test suites for retrievers and tools, unchanged, with only the required
properties.
"""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import RetrieversIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from rlm_integrations.langchain import RLMStoreRetriever, RLMStoreToolkit, create_rlm_tool
from tests.langchain._agents import findings, scripted


@functools.cache
def tools() -> dict[str, BaseTool]:
    """The tool that queries the document, and those over the findings."""
    return {
        tool.name: tool
        for tool in [create_rlm_tool(scripted()), *RLMStoreToolkit(store=findings()).get_tools()]
    }


@pytest.fixture(autouse=True, scope="module")
def no_document_is_kept() -> Iterator[None]:
    yield
    tools.cache_clear()


class TestSearch(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RLMStoreRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": findings()}

    @property
    def retriever_query_example(self) -> str:
        return "invalid=no"


class TestFreeText(TestSearch):
    @property
    def retriever_query_example(self) -> str:
        return "What did the dam cost, and who approved it?"


class _Asking:
    @property
    def tool_constructor(self) -> BaseTool:
        return tools()["ask_document"]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"question": "Who approved the dam?"}


class _Searching:
    @property
    def tool_constructor(self) -> BaseTool:
        return tools()["search_findings"]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "the dam", "k": 2}


class _SummingUp:
    @property
    def tool_constructor(self) -> BaseTool:
        return tools()["summarise_findings"]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "type=claim"}


class _Reading:
    @property
    def tool_constructor(self) -> BaseTool:
        return tools()["read_span"]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"source": "context_0", "start": 0, "end": 20}


class TestAskingUnit(_Asking, ToolsUnitTests): ...


class TestAsking(_Asking, ToolsIntegrationTests): ...


class TestSearchingUnit(_Searching, ToolsUnitTests): ...


class TestSearching(_Searching, ToolsIntegrationTests): ...


class TestSummingUpUnit(_SummingUp, ToolsUnitTests): ...


class TestSummingUp(_SummingUp, ToolsIntegrationTests): ...


class TestReadingUnit(_Reading, ToolsUnitTests): ...


class TestReading(_Reading, ToolsIntegrationTests): ...
