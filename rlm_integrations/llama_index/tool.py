"""The engine as a tool for agents and routers, over its own documents or over one in a workflow's
context.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.schema import NodeWithScore
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolOutput
from llama_index.core.tools.types import ToolMetadata
from llama_index.core.workflow import Context

from rlm_integrations.cited_answer import statements
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import IncompleteError, InputError
from rlm_integrations.llama_index.query_engine import RLMQueryEngine
from rlm_integrations.llama_index.response import EMPTY
from rlm_integrations.result import RLMResult

DESCRIPTION = (
    "Answers a question over documents that are too long to read, with exact quotes as sources. "
    "Ask in full sentences and name what you "
    "are looking for: each question is answered by itself."
)
_VALID_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# LlamaIndex rejects longer descriptions when the tool is sent to a model
_MAX_DESCRIPTION_CHARS = 1024
# Maximum length of an answer for the model: a run can answer with its whole document
_MAX_ANSWER_CHARS: Final = 50_000
_MAX_QUOTE_CHARS: Final = 300  # of each quote in the message
_MAX_QUOTES: Final = 20  # in the message


class RLMEngineTool(QueryEngineTool):
    """A tool whose output marks partial answers. Copies share the engine."""

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """The answer to the question in `input`."""
        query = self._get_query_str(*args, **kwargs)
        try:
            return answer_output(self.metadata.get_name(), query, self.query_engine.query(query))
        except IncompleteError as error:
            return answer_output(self.metadata.get_name(), query, error)

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """The same for asynchronous callers."""
        query = self._get_query_str(*args, **kwargs)
        try:
            response = await self.query_engine.aquery(query)
        except IncompleteError as error:
            return answer_output(self.metadata.get_name(), query, error)
        return answer_output(self.metadata.get_name(), query, response)

    def __deepcopy__(self, _memo: object) -> Self:
        return type(self)(self.query_engine, self.metadata, self._resolve_input_errors)


def as_query_engine_tool(
    engine: BaseQueryEngine, name: str = "ask_document", description: str = DESCRIPTION
) -> QueryEngineTool:
    """A tool that queries the engine, without streaming.

    The output is the answer. If the run did not finish, the output says so: it is a partial answer,
    or an error if there is none.

    Args:
        engine: The engine.
        name: The tool's name for the model: letters, digits, "_" and "-".
        description: The tool's description for the model.

    Raises:
        InputError: An argument is invalid.
    """
    if not isinstance(engine, BaseQueryEngine):
        raise InputError(f"engine must be a query engine, not {type(engine).__name__}")
    plain = engine.without_streaming() if isinstance(engine, RLMQueryEngine) else engine
    return RLMEngineTool(plain, _metadata(name, description))


def askable(
    tool: QueryEngineTool | RLM,
    context_key: str = "document",
    *,
    name: str | None = None,
    description: str | None = None,
) -> FunctionTool:
    """A tool that queries the document in the context of its agent's workflow, so that one tool
    serves every document.

    Put the document into the workflow's `Context` with `await ctx.store.set(context_key,
    document)`: a string, a LlamaIndex document, or a list of these, but not a path, because
    workflows serialize their context. The model supplies only the question. The document is read
    for each question, and is in no message, event or trace. With `storage=`, a run that was under
    way when the context was saved is resumed; see `RLMQueryEngine.in_workflow`.

        agent = FunctionAgent(tools=[askable(RLM(llm), "report")], llm=llm)
        ctx = Context(agent)
        await ctx.store.set("report", Path("report.txt").read_text())
        await agent.run("Who wrote it?", ctx=ctx)

    Args:
        tool: A tool of `as_query_engine_tool`, whose engine is used, also for its own documents if
            the context has none; or an `RLM`.
        context_key: The key of the document in the context's store.
        name: The tool's name for the model; default: the name of `tool`, or "ask_document" for an
            `RLM`.
        description: The tool's description for the model; default: that of `tool`.

    Raises:
        InputError: An argument is invalid.
    """
    has_own = isinstance(tool, QueryEngineTool)
    engine = tool.query_engine if isinstance(tool, QueryEngineTool) else tool
    if isinstance(engine, RLM):
        engine = RLMQueryEngine.from_rlm(engine, " ")  # a placeholder document, never queried
    if not isinstance(engine, RLMQueryEngine):
        raise InputError(
            "askable takes a tool of as_query_engine_tool over an RLMQueryEngine, or an "
            f"RLM, not {type(tool).__name__}"
        )
    if not context_key:
        raise InputError(
            f"context_key={context_key!r}: must be the key of the document in the workflow's "
            "context"
        )
    given = (
        tool.metadata
        if isinstance(tool, QueryEngineTool)
        else ToolMetadata(DESCRIPTION, "ask_document")
    )
    metadata = _metadata(name or given.get_name(), description or given.description)

    # The name that query engine tools use
    async def ask(ctx: Context, input: str) -> ToolOutput:  # noqa: A002
        document = await ctx.store.get(context_key, default=None)
        if document is None and not has_own:
            return _output(
                metadata.get_name(),
                input,
                f"there is no document {context_key!r} in the workflow's context",
                True,
                None,
            )
        asked = (engine if document is None else engine.over(document)).in_workflow(ctx)
        try:
            response = await asked.aquery(input)
        except IncompleteError as error:
            return answer_output(metadata.get_name(), input, error)
        return answer_output(metadata.get_name(), input, response)

    return OutputTool.from_defaults(
        async_fn=ask, name=metadata.name, description=metadata.description
    )


class OutputTool(FunctionTool):
    """A tool whose function returns the `ToolOutput` itself."""

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """The function's output."""
        output = await super().acall(*args, **kwargs)
        return output.raw_output if isinstance(output.raw_output, ToolOutput) else output

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """The same for synchronous callers."""
        output = super().call(*args, **kwargs)
        return output.raw_output if isinstance(output.raw_output, ToolOutput) else output


def _metadata(name: object, description: object) -> ToolMetadata:
    if not isinstance(name, str) or not _VALID_NAME.fullmatch(name):
        raise InputError(
            f"name={name!r}: models accept names of 1 to 64 letters, digits, '_' and '-'"
        )
    if (
        not isinstance(description, str)
        or not description.strip()
        or len(description) > _MAX_DESCRIPTION_CHARS
    ):
        raise InputError(
            f"description must be a string of 1 to {_MAX_DESCRIPTION_CHARS:,} characters, "
            "because LlamaIndex rejects longer ones"
        )
    return ToolMetadata(description, name)


def _message_of(response: RESPONSE_TYPE) -> tuple[str, bool]:
    """The message for the model, and whether it is an error."""
    text, metadata = (
        str(response),
        response.metadata if isinstance(response.metadata, Mapping) else {},
    )
    reason = metadata.get("stop_reason", "final")
    return (
        ("\n".join([_truncate(text), *_quotes(text, response.source_nodes)]), False)
        if reason == "final"
        else _partial_message(text, reason, metadata.get("error"))
    )


def _quotes(answer: str, sources: Sequence[NodeWithScore]) -> list[str]:
    """The quotes whose numbers are in the answer."""
    found, _ = statements(answer, len(sources))
    numbers = sorted({number for each in found for number in each.numbers})
    quotes = [(each, sources[each - 1].node.get_content()) for each in numbers[:_MAX_QUOTES]]
    return [
        f"[{number}] {quote[:_MAX_QUOTE_CHARS]}{'…' if len(quote) > _MAX_QUOTE_CHARS else ''}"
        for number, quote in quotes
    ]


def _message_of_incomplete(result: RLMResult) -> tuple[str, bool]:
    return _partial_message(result.partial or "", result.stop_reason, result.error)


def _partial_message(text: str, reason: str, error: str | None) -> tuple[str, bool]:
    why = f"{reason}: {error}" if error else reason
    if text.strip() in {"", EMPTY}:
        return f"There is no answer: the run was stopped by {why}.", True
    return f"{_truncate(text)}\n(This is a partial answer: the run was stopped by {why}.)", False


def _truncate(text: str) -> str:
    return (
        text
        if len(text) <= _MAX_ANSWER_CHARS
        else f"{text[:_MAX_ANSWER_CHARS]}… ({len(text):,} characters)"
    )


def answer_output(name: str, query: str, answer: RESPONSE_TYPE | IncompleteError) -> ToolOutput:
    """The output of a tool for its model: the answer with its quotes, or what there is of it."""
    if isinstance(answer, IncompleteError):
        return _output(name, query, *_message_of_incomplete(answer.result), answer)
    return _output(name, query, *_message_of(answer), answer)


def _output(name: str, query: str, content: str, is_error: bool, raw: Any) -> ToolOutput:
    return ToolOutput(
        tool_name=name,
        content=content,
        raw_input={"input": query},
        raw_output=raw,
        is_error=is_error,
    )
