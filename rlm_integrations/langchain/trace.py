"""One trace for a whole tree of runs: the callbacks for each model call."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.events import ChildFinished, Event, RunStarted
from rlm_integrations.langchain.outputs import usage_metadata
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.frameworks.langchain import (
    KINDS,
    ConfigurableLM,
    LangChainLM,
    outer_config,
    trace_config,
)
from rlm_integrations.lm.frameworks.langchain_callbacks import whole
from rlm_integrations.records import Completion, Request

P = ParamSpec("P")

ChainRun = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
Callbacks = CallbackManager | AsyncCallbackManager


class Trace:
    """The LangChain runs of one tree: the runnable's own run, and below it one for each child run.

    A child's run starts at the child's first model call, because only there can tracers be awaited.
    A child that never calls a model has no run.

    Args:
        manager: The callbacks of the runnable's own run.
        stream_tokens: Whether the models' tokens go into the user's own message stream.
    """

    def __init__(self, manager: ChainRun, *, stream_tokens: bool = False) -> None:
        below = _below(manager)
        self._runs: dict[str, Callbacks] = {
            "": below if stream_tokens else cast("Callbacks", whole(below))
        }
        self._children: dict[str, ChainRun] = {}
        self._paths: dict[str, str] = {}  # of child runs, by their ids in the events
        self._stream_tokens = stream_tokens

    def enter(self) -> None:
        """Make this the trace of everything that the current context starts after this call."""
        outer_config.set(self.config_of)

    async def config_of(self, request: Request) -> RunnableConfig:
        """The configuration of a model call."""
        config = RunnableConfig(callbacks=await self._callbacks_of(run_of(request), request.query))
        if self._stream_tokens:
            config["tags"] = [tag for tag in trace_config(request)["tags"] if tag != "nostream"]
        return config

    async def _callbacks_of(self, path: str, query: str) -> Callbacks:
        path = path if "/" in path else ""  # the runnable's own run, or a batch
        if path not in self._runs:
            above = (await self._callbacks_of(parent_of(path), query)).copy()
            above.add_metadata({"rlm_path": path}, inherit=False)
            child: ChainRun = await notify(
                above.on_chain_start, {}, {"question": query}, name="rlm.child"
            )
            self._children[path] = child
            self._runs[path] = _below(child)
        return self._runs[path]

    async def note(self, event: Event) -> None:
        """Follow an event: report the end of a child run to the tracers."""
        if isinstance(event, RunStarted):
            self._paths[event.id] = event.path
        elif (
            isinstance(event, ChildFinished)
            and (child := self._children.pop(self._paths.get(event.id, ""), None)) is not None
        ):
            await notify(
                child.on_chain_end, {"answer": event.answer, "stop_reason": event.stop_reason}
            )

    async def abandon(self, error: BaseException) -> None:
        """Report an error for all unfinished child runs, the innermost first."""
        for path in sorted(self._children, reverse=True):
            await notify(self._children.pop(path).on_chain_error, error)


def run_of(request: Request) -> str:
    """The path of the run that makes a call: `r:t2` and `r.b2/b1f0c9a3e57.17` are calls of the run
    `r`.
    """
    return request.path.rpartition(":")[0] if request.role == "root" else parent_of(request.path)


def parent_of(path: str) -> str:
    """The path of the run whose block made this call."""
    return path.rpartition("/")[0].rpartition(".")[0]


def traced(lm: LM) -> LM:
    """The model with LangChain tracing; LangChain's own models already have it."""
    return lm if isinstance(lm, ConfigurableLM | LangChainLM | TracedLM) else TracedLM(lm)


class TracedLM:
    """A model of this library that reports its prompts and answers to LangChain's callbacks, if a
    `Trace` is active.
    """

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self.name = lm.name
        self.context_window = lm.context_window

    def __getattr__(self, name: str) -> Any:
        """All other attributes are the model's, such as the key of its limiter."""
        return getattr(self._lm, name)

    async def complete(self, request: Request) -> Completion:
        """The model's answer."""
        config_of = outer_config.get()
        config = trace_config(request) | (
            await config_of(request) if config_of is not None else RunnableConfig()
        )
        callbacks = config.get("callbacks")
        if (
            not isinstance(callbacks, CallbackManager | AsyncCallbackManager)
            or not callbacks.handlers
        ):
            return await self._lm.complete(request)
        messages = [KINDS[message.role](message.content) for message in request.messages]
        callbacks = callbacks.copy()
        callbacks.add_tags(config["tags"], inherit=False)
        metadata = {
            **config.get("metadata", {}),
            "ls_provider": "rlm_integrations",
            "ls_model_name": self.name,
            "ls_model_type": "chat",
        }
        callbacks.add_metadata(metadata, inherit=False)
        (run,) = await notify(
            callbacks.on_chat_model_start, {"name": self.name}, [messages], name=config["run_name"]
        )
        try:
            completion = await self._lm.complete(request)
        except BaseException as error:
            await notify(run.on_llm_error, error, response=LLMResult(generations=[]))
            raise
        await notify(run.on_llm_end, _result(completion, self.name))
        return completion


def _result(completion: Completion, name: str) -> LLMResult:
    about = {"model_name": completion.model or name, "finish_reason": completion.finish_reason}
    usage = usage_metadata(completion.usage) if completion.usage is not None else None
    message = AIMessage(completion.text, usage_metadata=usage, response_metadata=about)
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def _below(manager: ChainRun) -> Callbacks:
    return manager.get_child()


async def notify(function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Call a callback manager's method. A synchronous one runs the user's code, so it runs in a
    thread.
    """
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await in_thread(function, *args, **kwargs)
