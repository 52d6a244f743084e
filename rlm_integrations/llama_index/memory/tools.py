"""The tools of an agent with an archive, and tools whose long outputs move to it."""

import functools
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from llama_index.core.tools import AsyncBaseTool, FunctionTool, ToolOutput
from llama_index.core.workflow import Context
from pydantic import Field

from rlm_integrations._concurrency.portal import portal
from rlm_integrations.errors import IncompleteError
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
from rlm_integrations.llama_index.memory.archive import Archives, CountTokens, shorten
from rlm_integrations.llama_index.tool import OutputTool, answer_output

Ids = Annotated[list[str] | None, Field(description=IDS)]
_CONTEXT: Final = "rlm_context"  # the parameter of a tool that gets the workflow's context


class _SessionTool(OutputTool):
    """A tool that is also called outside of a workflow."""

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return await super().acall(*args, **{_CONTEXT: None, **kwargs})

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return super().call(*args, **{_CONTEXT: None, **kwargs})


def make_session_tools(archives: Archives, session_id: str | None) -> list[FunctionTool]:
    """The three tools.

    Args:
        archives: The archives.
        session_id: The session whose archive they use; None for that of the calling workflow.
    """

    async def ask(rlm_context: Context, question: str, ids: Ids = None) -> ToolOutput | str:
        document = await archives.find(rlm_context, session_id)
        if (await document.size())[0] == 0:
            return NOTHING
        try:
            response = await archives.ask(document, question, ids)
        except IncompleteError as error:
            return answer_output(ASK, question, error)
        return answer_output(ASK, question, response)

    async def search(rlm_context: Context, pattern: str, ids: Ids = None) -> str:
        return await search_archive(await archives.find(rlm_context, session_id), pattern, ids)

    async def read(
        rlm_context: Context,
        id: str,  # noqa: A002 - the model's name
        start: int = 0,
        end: int | None = None,
    ) -> str:
        document = await archives.find(rlm_context, session_id)
        return await read_archive(document, id, start, end)

    return [_tool(ASK, ask), _tool(SEARCH, search), _tool(READ, read)]


def offloading(
    tool: AsyncBaseTool,
    archives: Archives,
    session_id: str | None,
    offload_above: int,
    count: CountTokens,
) -> FunctionTool:
    """The tool, with stubs in the place of texts that have more than `offload_above` tokens."""

    def inner_arguments(ctx: Context | None, given: dict[str, Any]) -> dict[str, Any]:
        wanted = tool.ctx_param_name if isinstance(tool, FunctionTool) else None
        return given if wanted is None or ctx is None else {wanted: ctx, **given}

    async def shortened(output: ToolOutput, ctx: Context | None) -> ToolOutput:
        document = await archives.find(ctx, session_id)
        return await shorten(output, document, offload_above, count)

    async def acall(*args: Any, rlm_context: Context, **kwargs: Any) -> ToolOutput:
        output = await tool.acall(*args, **inner_arguments(rlm_context, kwargs))
        return await shortened(output, rlm_context)

    def call(*args: Any, rlm_context: Context, **kwargs: Any) -> ToolOutput:
        output = tool.call(*args, **inner_arguments(rlm_context, kwargs))
        return portal().run(shortened(output, rlm_context))

    return _SessionTool(fn=call, async_fn=acall, metadata=tool.metadata)


def _tool(
    name: str, function: Callable[..., Coroutine[Any, Any, ToolOutput | str]]
) -> FunctionTool:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> ToolOutput | str:
        return portal().run(function(*args, **kwargs))

    return _SessionTool.from_defaults(
        fn=call, async_fn=function, name=name, description=DESCRIPTIONS[name]
    )
