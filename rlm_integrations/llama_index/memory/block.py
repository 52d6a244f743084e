"""The memory block of agents whose conversations and tool outputs are too large for a window."""

from collections.abc import Callable
from typing import Any, Final

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.tools import BaseTool, FunctionTool
from llama_index.core.tools.types import AsyncBaseTool, adapt_to_async_tool
from pydantic import PrivateAttr

from rlm_integrations._concurrency.portal import portal
from rlm_integrations.errors import InputError
from rlm_integrations.faces.archive_tools import check_archive_options
from rlm_integrations.faces.growing import GrowingDocuments, SourceStorage
from rlm_integrations.llama_index.memory.archive import Archives, CountTokens, estimate_tokens
from rlm_integrations.llama_index.memory.tools import make_session_tools, offloading
from rlm_integrations.llama_index.memory.transcript import chat_transcript
from rlm_integrations.llama_index.runs import Runs
from rlm_integrations.records import Budget

_BUDGET: Final = Budget(max_calls=200)
_MIN_OFFLOADED: Final = 1_000  # tokens; a stub has about half as many
_SESSION: Final = "session_id"
_NOTE: Final = (
    "Earlier messages and long tool outputs of this conversation are, whole, in its archive. "
    "ask_context(question) answers a question over the archive, with quotes; "
    "search_context(pattern) finds words in it; read_context(id, start, end) reads a part of it."
)


class RLMMemoryBlock(BaseMemoryBlock[str]):
    """Keeps everything askable that leaves the short-term memory of a `Memory`.

    Messages that the memory flushes move, whole, to the archive of their session, which only grows.
    No model is called for that. Give the agent `tools()`: `ask_context` answers a question by a run
    of this library over the archive, with verified quotes; `search_context` and `read_context` call
    no model. Outputs of tools move to the same archive if the tools are wrapped by `askable`.

        block = RLMMemoryBlock(llm)
        memory = Memory.from_defaults(session_id="7", memory_blocks=[block])
        agent = FunctionAgent(tools=[block.askable(read_log), *block.tools()], llm=llm)
        await agent.run("When did the pump fail?", memory=memory)

    One block serves all sessions, at the same time. A conversation that fits is not changed.

    Args:
        llm: The model that answers `ask_context`; see `RLMQueryEngine.from_defaults`.
        sub_llm: The model that its code calls; `llm` by default.
        name: The name of the block in its memory.
        priority: See LlamaIndex's `BaseMemoryBlock`; 0 means that the memory never leaves out the
            note on the archive.
        storage: A `Storage` for what is moved, where a restarted process finds it. By default it is
            in this process, for the latest 1,000 sessions.
        options: Further options of `RLM`, such as `limits`. By default `ask_context` has a `budget`
            of 200 calls. It has no tools and no store.

    Raises:
        InputError: An argument is invalid.
    """

    _archives: Archives = PrivateAttr()

    def __init__(
        self,
        llm: object = None,
        sub_llm: object = None,
        *,
        name: str = "archive",
        priority: int = 0,
        storage: SourceStorage | None = None,
        **options: Any,
    ) -> None:
        check_archive_options(options)
        runs = Runs.of(llm, sub_llm, None, {"budget": _BUDGET, **options})
        super().__init__(name=name, priority=priority)
        self._archives = Archives(runs, GrowingDocuments(storage))

    def tools(self, session_id: str | None = None) -> list[FunctionTool]:
        """The tools `ask_context`, `search_context` and `read_context`.

        Args:
            session_id: The session whose archive they read. By default it is that of the agent's
                workflow that calls them; other callers have to give it.
        """
        return make_session_tools(self._archives, session_id)

    def askable(
        self,
        tool: BaseTool | Callable[..., Any],
        *,
        offload_above: int = 5_000,
        count_tokens: CountTokens = estimate_tokens,
        session_id: str | None = None,
    ) -> AsyncBaseTool:
        """The tool, with a stub in the place of a text that is too long, which moves, whole, to the
        archive. The stub has its id, size, beginning and end, and says how to ask.

        Images and other blocks stay, and so does a `raw_output` that is no string. A tool with
        `return_direct=True` is returned as it is: its output is the agent's answer.

        Args:
            tool: A tool, or a function.
            offload_above: The tokens of an output that stay in the conversation, at least 1,000.
            count_tokens: Counts the tokens of a text; by default four characters are one.
            session_id: As in `tools`.

        Raises:
            InputError: An argument is invalid.
        """
        if offload_above < _MIN_OFFLOADED:
            raise InputError(f"offload_above must be at least {_MIN_OFFLOADED:,} tokens")
        if not isinstance(tool, BaseTool):
            if not callable(tool):
                raise InputError(f"askable takes a tool or a function, not {type(tool).__name__}")
            tool = FunctionTool.from_defaults(tool)
        wrapped = adapt_to_async_tool(tool)
        if wrapped.metadata.return_direct:
            return wrapped
        return offloading(wrapped, self._archives, session_id, offload_above, count_tokens)

    def forget(self, session_id: str) -> int:
        """Remove everything that was moved in a session; returns how many texts that were."""
        return portal().run(self.aforget(session_id))

    async def aforget(self, session_id: str) -> int:
        """See `forget`."""
        return await self._archives.forget(session_id)

    async def _aget(
        self,
        messages: list[ChatMessage] | None = None,  # noqa: ARG002 - LlamaIndex's
        **block_kwargs: Any,
    ) -> str:
        session_id = block_kwargs.get(_SESSION)
        if session_id is None:
            return ""
        count, _ = await self._archives.of(str(session_id)).size()
        return _NOTE if count else ""

    async def _aput(self, messages: list[ChatMessage]) -> None:
        if not messages:
            return
        session_id = messages[0].additional_kwargs.get(_SESSION)
        if session_id is None:
            raise InputError("a memory block keeps messages of a session: pass session_id=…")
        await self._archives.of(str(session_id)).add(
            "conversation",
            chat_transcript(messages),
            metadata={"what": "earlier messages of the conversation"},
        )
