"""The middleware for agents whose tool outputs and histories are too large for a window."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Annotated, Any, Final, NotRequired

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
)
from langchain.agents.middleware.types import PrivateStateAttr
from langchain.agents.structured_output import AutoStrategy, ToolStrategy
from langchain.tools import ToolRuntime
from langchain.tools.tool_node import ToolCallRequest
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langgraph.config import get_config
from langgraph.runtime import Runtime
from langgraph.types import Command
from typing_extensions import override

from rlm_integrations._concurrency.portal import portal
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import InputError
from rlm_integrations.faces.archive_tools import check_archive_options
from rlm_integrations.faces.growing import GrowingDocument, GrowingDocuments, SourceStorage
from rlm_integrations.langchain.agents.archive import DOCUMENT, Archive, new_document_id
from rlm_integrations.langchain.agents.exchanges import MOVED, Count
from rlm_integrations.langchain.agents.stubs import STUB, message_text
from rlm_integrations.langchain.agents.tools import NAMES, make_tools
from rlm_integrations.langchain.runnable import RLMRunnable
from rlm_integrations.records import Budget

_MIN_OFFLOADED: Final = 1_000  # tokens; a stub has about half as many
_BUDGET: Final = Budget(max_calls=200)
_REMEMBERED: Final = 10_000  # conversations of which is known whether anything was moved

Result = ToolMessage | Command[Any]
Response = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]


class RLMState(AgentState[Any]):
    """The state of an agent with the middleware.

    Attributes:
        rlm_document: The id of the document of a run that belongs to no thread.
    """

    rlm_document: NotRequired[Annotated[str, PrivateStateAttr]]


class RLMMiddleware(AgentMiddleware[RLMState, Any, Any]):
    """Keeps an agent's window small, and everything that leaves it askable.

    Outputs of tools that are too long, and the oldest messages of a conversation that is too long,
    move to a document of the thread that only grows. Short stubs stay. Moving calls no model. The
    agent gets three tools, once something was moved: `ask_context` answers a question by a run of
    this library over what was moved, with verified quotes; `search_context` and `read_context` call
    no model. A conversation that fits is not changed.

    An AI message and the results of its tool calls move together. System messages, the first and
    the latest human message, and images and other files stay; so do artifacts of tool messages.

    Args:
        root_llm: The model that answers `ask_context`; see `RLMRunnable`.
        sub_llm: The model that its code calls; `root_llm` by default.
        keep_below: The bound of a request, in tokens, with system message and tools. When it would
            be passed, a quarter of it is freed.
        offload_above: The tokens of a tool's output that stay in the conversation.
        keep_recent: How many of the last messages stay, if the bound allows it.
        token_counter: Counts the tokens of messages; by default LangChain's approximation of four
            characters each, which undercounts text such as base64 or Chinese.
        storage: A `Storage` for what is moved, where a restarted process finds it. By default it is
            in this process, for the latest 1,000 threads.
        options: Further options of `RLMRunnable`, such as `limits`. By default `ask_context` has a
            `budget` of 200 calls. It has no tools and no store.

    Raises:
        InputError: An argument is invalid.
    """

    state_schema = RLMState

    def __init__(
        self,
        root_llm: object,
        sub_llm: object = None,
        *,
        keep_below: int = 100_000,
        offload_above: int = 5_000,
        keep_recent: int = 10,
        token_counter: Count | None = None,
        storage: SourceStorage | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_archive_options(options)
        if offload_above < _MIN_OFFLOADED or keep_below < 4 * offload_above or keep_recent < 0:
            raise InputError(
                f"offload_above must be at least {_MIN_OFFLOADED:,} tokens, keep_below at least "
                "four times offload_above, and keep_recent not negative"
            )
        runnable = RLMRunnable(
            root_llm, sub_llm, **{"budget": _BUDGET, "name": "ask_context", **options}
        )
        self.tools = make_tools(runnable, self._document_of_call)
        self._keep_below = keep_below
        self._offload_above = offload_above
        self._keep_recent = keep_recent
        self._count: Count = token_counter or count_tokens_approximately
        self._documents = GrowingDocuments(storage)
        self._known: dict[str, bool] = {}  # whether anything was moved, by document
        self._lock = Lock()

    def forget(self, thread_id: str) -> int:
        """Remove everything that was moved in a thread; returns how many texts that were."""
        return portal().run(self.aforget(thread_id))

    async def aforget(self, thread_id: str) -> int:
        """See `forget`."""
        name = _of_thread(thread_id)
        count = await self._documents.forget(name)
        with self._lock:
            self._known.pop(name, None)
        return count

    @override
    def before_agent(self, state: RLMState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Give a run without a thread a document; the one that its messages refer to, if any."""
        if _thread_id(get_config()) is not None or state.get("rlm_document"):
            return None
        marks = (each.additional_kwargs.get(DOCUMENT) for each in state["messages"])
        known = next((each for each in marks if isinstance(each, str)), None)
        return {"rlm_document": known or new_document_id()}

    @override
    async def abefore_agent(self, state: RLMState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """See `before_agent`."""
        return self.before_agent(state, runtime)

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Response:
        """Move what makes the request too large, and call the model."""
        request, changes = portal().run(self._fit(request, get_config()))
        return _with_changes(handler(request), changes)

    @override
    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> Response:
        """See `wrap_model_call`."""
        request, changes = await self._fit(request, get_config())
        return _with_changes(await handler(request), changes)

    @override
    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]
    ) -> Result:
        """Call the tool, and move its output if it is too long."""
        result = handler(request)
        if not self._large_in(request, result):
            return result
        return portal().run(self._offload(request, result))

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """See `wrap_tool_call`."""
        result = await handler(request)
        if not await in_thread(self._large_in, request, result):
            return result
        return await self._offload(request, result)

    async def _fit(
        self, request: ModelRequest[Any], config: Mapping[str, Any]
    ) -> tuple[ModelRequest[Any], list[Any]]:
        """The request with messages that fit, and the changes of the state."""
        state: Any = request.state
        name = _document_name(state, config)
        is_used = await self._is_used(name, request.messages)
        if not is_used:
            request = _without_tools(request)
        fixed = await in_thread(self._fixed_tokens, request)
        if fixed + await in_thread(self._count, request.messages) <= self._keep_below:
            return request, []
        if not is_used:  # the tools come with the first note
            request = request.override(tools=[*request.tools, *self.tools])
            fixed = await in_thread(self._fixed_tokens, request)
        messages, changes = await self._archive(name).fit(
            request.messages,
            state["messages"],
            fixed,
            self._keep_below,
            self._keep_recent,
            self._count,
        )
        if changes:
            self._note_use(name, is_used=True)
            return request.override(messages=messages), changes
        return request if is_used else _without_tools(request), changes

    def _fixed_tokens(self, request: ModelRequest[Any]) -> int:
        """The tokens of everything in a request that is no message of the conversation."""
        system = [] if request.system_message is None else [request.system_message]
        chosen: Any = request.response_format
        if isinstance(chosen, AutoStrategy):
            chosen = ToolStrategy(chosen.schema)
        specs = getattr(chosen, "schema_specs", None) or [getattr(chosen, "schema_spec", None)]
        described = [{"schema": each.json_schema} for each in specs if each is not None]
        tools: Any = [*request.tools, *described]
        return self._count(system) + count_tokens_approximately([], tools=tools)

    def _large_in(self, request: ToolCallRequest, result: Result) -> list[ToolMessage]:
        """The messages of a tool's result that are too long. Its own tools bound their outputs, and
        an output that is the agent's answer stays.
        """
        if request.tool_call["name"] in NAMES or getattr(request.tool, "return_direct", False):
            return []
        return [each for each in _messages_of(result) if self._is_large(each)]

    def _is_large(self, message: object) -> bool:
        if not isinstance(message, ToolMessage) or STUB in message.additional_kwargs:
            return False
        plain = message.model_copy(update={"content": message_text(message.content)})
        return self._count([plain]) > self._offload_above

    async def _offload(self, request: ToolCallRequest, result: Result) -> Result:
        name = _document_name(request.state, request.runtime.config)
        archive = self._archive(name)
        self._note_use(name, is_used=True)
        if isinstance(result, ToolMessage):
            return await archive.shorten(result)
        update: Any = result.update
        messages = [
            await archive.shorten(each) if await in_thread(self._is_large, each) else each
            for each in _messages_of(result)
        ]
        return replace(result, update={**update, "messages": messages})

    def _archive(self, name: str) -> Archive:
        kind, _, id_ = name.partition(":")
        return Archive(self._documents.of(name), {DOCUMENT: id_} if kind == "run" else {})

    def _document_of_call(self, runtime: ToolRuntime[Any, Any]) -> GrowingDocument:
        return self._documents.of(_document_name(runtime.state, runtime.config))

    async def _is_used(self, name: str, messages: Sequence[AnyMessage]) -> bool:
        """Whether anything was moved to a document, in this process or another one."""
        if any(
            STUB in each.additional_kwargs or MOVED in each.additional_kwargs for each in messages
        ):
            return True
        with self._lock:
            known = self._known.get(name)
        if known is None:
            known = (await self._documents.of(name).size())[0] > 0
            self._note_use(name, is_used=known)
        return known

    def _note_use(self, name: str, *, is_used: bool) -> None:
        with self._lock:
            self._known[name] = self._known.pop(name, False) or is_used
            while len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]


def _messages_of(result: Result) -> Sequence[Any]:
    if isinstance(result, ToolMessage):
        return [result]
    update: Any = result.update
    found = update.get("messages") if isinstance(update, Mapping) else None
    return found if isinstance(found, list) else []


def _without_tools(request: ModelRequest[Any]) -> ModelRequest[Any]:
    kept = [each for each in request.tools if getattr(each, "name", None) not in NAMES]
    return request if len(kept) == len(request.tools) else request.override(tools=kept)


def _with_changes(response: Response, changes: list[Any]) -> Response:
    if not changes:
        return response
    if isinstance(response, AIMessage):
        response = ModelResponse(result=[response])
    if isinstance(response, ExtendedModelResponse):
        raise TypeError("the handler of a model call returned the commands of an inner middleware")
    return ExtendedModelResponse(response, Command(update={"messages": changes}))


def _thread_id(config: Mapping[str, Any]) -> str | None:
    found = config.get("configurable", {}).get("thread_id")
    return None if found is None else str(found)


def _of_thread(thread_id: str) -> str:
    return f"thread:{thread_id}"


def _document_name(state: Any, config: Mapping[str, Any]) -> str:
    """The document of the thread, or else the one that the run was given at its beginning."""
    thread_id = _thread_id(config)
    if thread_id is not None:
        return _of_thread(thread_id)
    found = state.get("rlm_document") if isinstance(state, Mapping) else None
    if found is None:
        raise InputError(
            "RLMMiddleware found neither a thread_id in the configuration nor the state of its "
            "agent: pass {'configurable': {'thread_id': …}}"
        )
    return f"run:{found}"
