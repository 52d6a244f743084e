"""The tools with which an agent asks, searches and reads what was moved out of its window."""

import functools
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import Field

from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.portal import portal
from rlm_integrations._concurrency.runtime import close_apart
from rlm_integrations.errors import RLMError
from rlm_integrations.faces.archive_tools import (
    ASK,
    DESCRIPTIONS,
    IDS,
    NOTHING,
    READ,
    SEARCH,
    read_archive,
    search_archive,
)
from rlm_integrations.faces.growing import GrowingDocument
from rlm_integrations.langchain.agents.archive import with_message_ids
from rlm_integrations.langchain.runnable import RLMRunnable
from rlm_integrations.langchain.tool import message_and_artifact, message_for_model

NAMES: Final = frozenset(DESCRIPTIONS)

Answer = tuple[str, Any]
Document = Callable[[ToolRuntime], GrowingDocument]
Ids = Annotated[list[str] | None, Field(description=IDS)]


def make_tools(runnable: RLMRunnable, document_of: Document) -> list[BaseTool]:
    """The three tools.

    Args:
        runnable: Answers questions.
        document_of: Finds the document of the conversation that calls.
    """

    async def ask(question: str, runtime: ToolRuntime, ids: Ids = None) -> Answer:
        document = document_of(runtime)
        if (await document.size())[0] == 0:
            return NOTHING, None
        corpus = await document.corpus(ids)
        try:
            output = await runnable.ainvoke({"question": question, "context": corpus})
        finally:
            await finish_despite_cancel(close_apart(corpus.close))
        message, artifact = message_and_artifact(output)
        return message, with_message_ids(artifact)

    async def search(pattern: str, runtime: ToolRuntime, ids: Ids = None) -> Answer:
        return await search_archive(document_of(runtime), pattern, ids), None

    async def read(id: str, runtime: ToolRuntime, start: int = 0, end: int | None = None) -> Answer:  # noqa: A002 - the model's name
        return await read_archive(document_of(runtime), id, start, end), None

    return [_tool(ASK, ask), _tool(SEARCH, search), _tool(READ, read)]


def _tool(name: str, function: Callable[..., Coroutine[Any, Any, Answer]]) -> BaseTool:
    """A tool whose errors the model is told, for synchronous and asynchronous agents."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Answer:
        try:
            return await function(*args, **kwargs)
        except RLMError as error:
            raise ToolException(message_for_model(error)) from error

    @functools.wraps(function)
    def call_in_thread(*args: Any, **kwargs: Any) -> Answer:
        return portal().run(call(*args, **kwargs))

    return StructuredTool.from_function(
        func=call_in_thread,
        coroutine=call,
        name=name,
        description=DESCRIPTIONS[name],
        response_format="content_and_artifact",
        handle_tool_error=True,
    )
