"""A document as an agent's tool: the model supplies a question, never the document."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, Final, Literal, ParamSpec, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import patch_config
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException
from pydantic import BaseModel, Field, PlainSerializer
from typing_extensions import override

from rlm_integrations.errors import IncompleteError, InputError, RLMError
from rlm_integrations.langchain.outputs import answer_text, plain_output
from rlm_integrations.langchain.run_ids import with_visit
from rlm_integrations.langchain.runnable import RLMRunnable

P = ParamSpec("P")
T = TypeVar("T")

DESCRIPTION: Final = (
    "Answers a question over a document that is too long to read. Ask one complete question; the "
    "answer comes with the places in the document that support it."
)
# Maximum length of an answer for the model, in characters: a run can answer with its whole document
_MAX_ANSWER_CHARS: Final = 50_000
_MAX_QUOTE_CHARS: Final = 300  # of each quote in the message
_MAX_QUOTES: Final = 20  # in the message
_MAX_KEPT_QUOTE_CHARS: Final = 2_000  # of each quote in the artifact, which goes into checkpoints
_MAX_KEPT_QUOTES: Final = 100  # in the artifact


class _Question(BaseModel):
    question: str = Field(
        description="One complete question, which can be understood without the conversation."
    )


class _QuestionInGraph(_Question):
    # BaseTool serializes its arguments to learn their names; the serializer leaves out the graph's
    # state and context, which may be large.
    runtime: Annotated[Any, InjectedToolArg, PlainSerializer(lambda _: None)] = None


class RLMTool(BaseTool):
    """The tool that `create_rlm_tool` creates."""

    name: str = "ask_document"
    description: str = DESCRIPTION
    args_schema: Any = _Question
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    runnable: Runnable[Any, dict[str, Any]]
    context_key: str | None = None

    @override
    def run(
        self,
        tool_input: str | dict[str, Any],
        *args: Any,
        config: RunnableConfig | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """See `BaseTool.run`."""
        visit = _with_call(config, tool_call_id)
        return super().run(tool_input, *args, config=visit, tool_call_id=tool_call_id, **kwargs)

    @override
    async def arun(
        self,
        tool_input: str | dict[str, Any],
        *args: Any,
        config: RunnableConfig | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """See `BaseTool.arun`."""
        visit = _with_call(config, tool_call_id)
        return await super().arun(
            tool_input, *args, config=visit, tool_call_id=tool_call_id, **kwargs
        )

    def _run(
        self,
        question: str,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
        runtime: Any = None,
    ) -> tuple[str, dict[str, Any]]:
        # Raised to the developer, not reported to the model: it cannot supply a missing document
        asked = self._runnable_input(question, runtime)
        return message_and_artifact(
            with_tool_exceptions(self.runnable.invoke)(asked, _child_config(config, run_manager))
        )

    async def _arun(
        self,
        question: str,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
        runtime: Any = None,
    ) -> tuple[str, dict[str, Any]]:
        asked = self._runnable_input(question, runtime)
        try:
            return message_and_artifact(
                await self.runnable.ainvoke(asked, _child_config(config, run_manager))
            )
        except RLMError as error:
            raise ToolException(message_for_model(error)) from error

    def _runnable_input(self, question: str, runtime: Any) -> dict[str, Any]:
        """The runnable's input. The document comes only from the graph's context or state, never
        from the model's arguments.
        """
        if self.context_key is None:
            return {"question": question}
        if isinstance(runtime, Mapping | str | list | int | float | None):
            if not _has_document(self.runnable):
                raise InputError(
                    f"there is no document: the tool takes it as {self.context_key!r} from "
                    "the graph that runs it"
                )
            return {"question": question}
        return {
            "question": question,
            "context": _document_of(self.context_key, runtime.context, runtime.state),
        }


def create_rlm_tool(
    runnable: Runnable[Any, dict[str, Any]],
    *,
    name: str = "ask_document",
    description: str = DESCRIPTION,
    context_key: str | None = None,
    return_direct: bool = False,
) -> BaseTool:
    """A tool with which an agent asks questions about a document.

    The model gets a message with the answer and the quotes that support it. The artifact is the
    runnable's output in plain JSON, with the answer and quotes truncated to keep checkpoints small.
    Errors of a run are reported to the model as a message too.

    With `storage=`, the run of each call has an id of its own in the agent's thread, as with
    `as_node`.

    Args:
        runnable: An `RLMRunnable`, bound to its document with `with_context`, or a Runnable derived
            from one with `with_config`, `with_retry` …
        name: The tool's name.
        description: The tool's description for the model; say what the document is.
        context_key: The key of the document in the runtime context or state of the graph that runs
            the agent. The runnable then needs no bound document. A document in the runtime context
            stays out of checkpoints.
        return_direct: Whether the tool's message is the agent's answer.

    Raises:
        InputError: `runnable` is not a Runnable, or there is neither a bound document nor a
            `context_key`.
    """
    if not isinstance(runnable, Runnable):
        raise InputError(
            "a tool needs a runnable, such as RLMRunnable(…) or "
            f"RLMRunnable.from_rlm(rlm), not {type(runnable).__name__}"
        )
    if context_key is None and not _has_document(runnable):
        raise InputError(
            "the runnable has no document: bind one with with_context(…), "
            "or pass context_key=…, its key in the agent's runtime context or state"
        )
    return RLMTool(
        runnable=runnable,
        name=name,
        description=description,
        context_key=context_key,
        return_direct=return_direct,
        args_schema=_Question if context_key is None else _QuestionInGraph,
    )


def _has_document(runnable: Runnable[Any, Any]) -> bool:
    """Whether the runnable may have a document; a Runnable of an unknown kind is assumed to have
    one.
    """
    while isinstance(runnable, RunnableBindingBase):
        if runnable.kwargs.get("context") is not None:
            return True
        runnable = runnable.bound
    return not isinstance(runnable, RLMRunnable) or runnable.context is not None


def _with_call(config: RunnableConfig | None, tool_call_id: str | None) -> RunnableConfig | None:
    """The configuration with the agent's call, if it is one of a graph."""
    return config if tool_call_id is None else with_visit(config, tool_call_id)


def _child_config(
    config: RunnableConfig, run: CallbackManagerForToolRun | AsyncCallbackManagerForToolRun | None
) -> RunnableConfig:
    """The configuration for child runs: LangChain passes a tool the configuration of its caller."""
    return config if run is None else patch_config(config, callbacks=run.get_child())


def with_tool_exceptions(function: Callable[P, T]) -> Callable[P, T]:
    """The function with RLMError turned into ToolException, which LangChain shows to the model."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RLMError as error:
            raise ToolException(message_for_model(error)) from error

    return call


def message_for_model(error: RLMError) -> str:
    """The message of an error for the model, with the best partial answer if there is one."""
    if isinstance(error, IncompleteError):
        best = truncate(error.result.partial or "", _MAX_ANSWER_CHARS) or "none"
        return f"the run was stopped ({error.result.stop_reason}); the best answer so far: {best}"
    return str(error)


def _document_of(key: str, *places: Any) -> Any:
    for place in places:
        found = place.get(key) if isinstance(place, Mapping) else getattr(place, key, None)
        if found is not None:
            return found
    raise InputError(
        f"there is no document under {key!r} in the graph's runtime context or its state"
    )


def truncate(text: str, most: int) -> str:
    """The text, truncated to `most` characters with a note of its full length."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def message_and_artifact(output: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The message of a tool for the model, with the answer and its quotes; and the artifact."""
    artifact = plain_output(output)
    answer = answer_text(artifact)
    if len(answer) > _MAX_ANSWER_CHARS:
        artifact["answer"] = truncate(answer, _MAX_ANSWER_CHARS)
    partial = artifact["rlm"]["partial"]
    artifact["rlm"] = {
        **artifact["rlm"],
        "partial": partial and truncate(partial, _MAX_ANSWER_CHARS),
    }
    artifact["context"] = [
        {**each, "page_content": truncate(each["page_content"], _MAX_KEPT_QUOTE_CHARS)}
        for each in artifact["context"][:_MAX_KEPT_QUOTES]
    ]
    lines = [truncate(answer, _MAX_ANSWER_CHARS)] if answer else []
    for number, each in enumerate(artifact["context"][:_MAX_QUOTES], 1):
        (span,) = each["metadata"]["spans"]
        quote = each["page_content"]
        place = f"{span['doc_id']}:{span['start']}-{span['end']}"
        lines.append(
            f"[{number}] {each['metadata']['location'] or place} "
            f"{quote[:_MAX_QUOTE_CHARS]}{'…' if len(quote) > _MAX_QUOTE_CHARS else ''}"
        )
    run = artifact["rlm"]
    if run["stop_reason"] != "final":
        why = f"{run['stop_reason']}: {run['error']}" if run["error"] else run["stop_reason"]
        lines.append(
            f"({'This is a partial answer' if answer else 'There is no answer'}: the run was "
            f"stopped by {why}.)"
        )
    return "\n".join(lines), artifact
