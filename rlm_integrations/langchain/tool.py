"""A document as a tool of an agent: the model gives a question, never the document."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, Final, Literal, ParamSpec, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import patch_config
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException
from pydantic import BaseModel, Field, PlainSerializer

from rlm_integrations.errors import IncompleteError, InputError, RLMError
from rlm_integrations.langchain.outputs import plain_output, said
from rlm_integrations.langchain.runnable import RLMRunnable

P = ParamSpec("P")
T = TypeVar("T")

DESCRIPTION: Final = (
    "Answers a question over a document that is too long to read. Ask one complete question; the answer comes with the places in the "
    "document that support it."
)
# Characters of an answer that the model is shown: a run may answer with its whole document
_ANSWERED: Final = 50_000
_QUOTED: Final = 300  # characters of each quote that the model is shown
_CITED: Final = 20  # quotes that it is shown
_KEPT: Final = 2_000  # characters of each quote in the artifact, which goes into checkpoints
_CITED_KEPT: Final = 100  # quotes in the artifact


class _Question(BaseModel):
    question: str = Field(
        description="One complete question, which can be understood without the conversation."
    )


class _QuestionInGraph(_Question):
    # BaseTool dumps its arguments to learn their names: all of a graph's state and context, which
    # may be large, is left out of that.
    runtime: Annotated[Any, InjectedToolArg, PlainSerializer(lambda _: None)] = None


class RLMTool(BaseTool):
    """The tool that `create_rlm_tool` makes."""

    name: str = "ask_document"
    description: str = DESCRIPTION
    args_schema: Any = _Question
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    runnable: Runnable[Any, dict[str, Any]]
    context_key: str | None = None

    def _run(
        self,
        question: str,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
        runtime: Any = None,
    ) -> tuple[str, dict[str, Any]]:
        # Outside of what the model is told: a missing document is the developer's matter
        asked = self._asked(question, runtime)
        return _shown(failing_softly(self.runnable.invoke)(asked, _below(config, run_manager)))

    async def _arun(
        self,
        question: str,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
        runtime: Any = None,
    ) -> tuple[str, dict[str, Any]]:
        asked = self._asked(question, runtime)
        try:
            return _shown(await self.runnable.ainvoke(asked, _below(config, run_manager)))
        except RLMError as error:
            raise ToolException(_said(error)) from error

    def _asked(self, question: str, runtime: Any) -> dict[str, Any]:
        """The runnable's input; the document comes from where the graph has it, and a model's
        arguments are none of these.
        """
        if self.context_key is None:
            return {"question": question}
        if isinstance(runtime, Mapping | str | list | int | float | None):
            if not _has_document(self.runnable):
                raise InputError(
                    f"there is no document: the tool takes it as {self.context_key!r} from the graph that runs it"
                )
            return {"question": question}
        return {
            "question": question,
            "context": _found(self.context_key, runtime.context, runtime.state),
        }


def create_rlm_tool(
    runnable: Runnable[Any, dict[str, Any]],
    *,
    name: str = "ask_document",
    description: str = DESCRIPTION,
    context_key: str | None = None,
    return_direct: bool = False,
) -> BaseTool:
    """A tool by which an agent asks a document.

    The message that the model gets is the answer with the quotes that support it; the artifact is
    the runnable's output in plain JSON, its answer and quotes cut to what a checkpoint bears. What
    goes wrong in a run comes to the model as a message too.

    Args:
        runnable: An `RLMRunnable`, bound to its document by `with_context`, or what was made of it
            by `with_config`, `with_retry` …
        name: The tool's name.
        description: What the model is told of it; say what the document is.
        context_key: Where the document is in the graph that runs the agent: a name in its runtime
            context or in its state. Then the runnable needs none of its own. In the runtime context
            it stays out of checkpoints.
        return_direct: Whether the tool's message is the agent's answer.

    Raises:
        InputError: This is no runnable, or it has no document and none is named.
    """
    if not isinstance(runnable, Runnable):
        raise InputError(
            f"a tool is made of a runnable, such as RLMRunnable(…) or RLMRunnable.from_rlm(rlm), not {type(runnable).__name__}"
        )
    if context_key is None and not _has_document(runnable):
        raise InputError(
            "the runnable has no document that the tool could ask: bind one by with_context(…), or say by context_key=… where the agent's "
            "runtime context or state has it"
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
    """Whether there may be one; of what is no RLMRunnable nothing is known."""
    while isinstance(runnable, RunnableBindingBase):
        if runnable.kwargs.get("context") is not None:
            return True
        runnable = runnable.bound
    return not isinstance(runnable, RLMRunnable) or runnable.context is not None


def _below(
    config: RunnableConfig, run: CallbackManagerForToolRun | AsyncCallbackManagerForToolRun | None
) -> RunnableConfig:
    """The configuration of what the tool starts: LangChain hands a tool the one that the tool
    itself was called with.
    """
    return config if run is None else patch_config(config, callbacks=run.get_child())


def failing_softly(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose errors of this library are the kind that a model is told of."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RLMError as error:
            raise ToolException(_said(error)) from error

    return call


def _said(error: RLMError) -> str:
    """What a model is told of an error; what was paid for is not lost on it."""
    if isinstance(error, IncompleteError):
        best = cut(error.result.partial or "", _ANSWERED) or "none"
        return f"the run was stopped ({error.result.stop_reason}); the best answer so far: {best}"
    return str(error)


def _found(key: str, *places: Any) -> Any:
    for place in places:
        found = place.get(key) if isinstance(place, Mapping) else getattr(place, key, None)
        if found is not None:
            return found
    raise InputError(
        f"there is no document under {key!r} in the graph's runtime context or its state"
    )


def cut(text: str, most: int) -> str:
    """The beginning of a text, with its whole length where that is not all."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _shown(output: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    artifact = plain_output(output)
    answer = said(artifact)
    if len(answer) > _ANSWERED:
        artifact["answer"] = cut(answer, _ANSWERED)
    partial = artifact["rlm"]["partial"]
    artifact["rlm"] = {**artifact["rlm"], "partial": partial and cut(partial, _ANSWERED)}
    artifact["context"] = [
        {**each, "page_content": cut(each["page_content"], _KEPT)}
        for each in artifact["context"][:_CITED_KEPT]
    ]
    lines = [cut(answer, _ANSWERED)] if answer else []
    for each in artifact["context"][:_CITED]:
        (span,) = each["metadata"]["spans"]
        quote = each["page_content"]
        lines.append(
            f"[{span['doc_id']}:{span['start']}-{span['end']}] {quote[:_QUOTED]}{'…' if len(quote) > _QUOTED else ''}"
        )
    run = artifact["rlm"]
    if run["stop_reason"] != "final":
        why = f"{run['stop_reason']}: {run['error']}" if run["error"] else run["stop_reason"]
        lines.append(
            f"({'This is a partial answer' if answer else 'There is no answer'}: the run was stopped by {why}.)"
        )
    return "\n".join(lines), artifact
