"""The chat engine: several questions over the same documents, in one REPL that keeps its
variables.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import (
    AgentChatResponse,
    BaseChatEngine,
    StreamingAgentChatResponse,
)
from llama_index.core.schema import QueryBundle

from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations._concurrency.portal import portal, running_loop
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.faces.progress import is_progress
from rlm_integrations.llama_index._defaults import callbacks, listening
from rlm_integrations.llama_index.cited import EvidenceOfRun, found
from rlm_integrations.llama_index.progress import ProgressReporter
from rlm_integrations.llama_index.response import apieces, metadata_of, pieces, response_text
from rlm_integrations.llama_index.runs import Runs, WithRuns
from rlm_integrations.llama_index.sources import source_of

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.indices.base import BaseIndex

    from rlm_integrations.engine.chat import Chat
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.events import Event
    from rlm_integrations.llama_index.texts import BoundTexts, IndexTexts, Texts

_MAX_HISTORY_CHARS: Final = 20_000  # of an earlier conversation, in a new session's question


class _Holder:
    """The open session of an event loop, which is closed with the loop."""

    def __init__(self) -> None:
        self.chat: Chat | None = None

    async def aclose(self) -> None:
        if self.chat is not None:
            await self.chat.aclose()


@dataclass(slots=True)
class _Talk:
    """A session with its document, RLM and event loop: if one of these changes, a new session
    begins.
    """

    chat: "Chat"
    texts: "Texts"
    rlm: "RLM"
    # None for the sync methods, which share a separate loop
    loop: asyncio.AbstractEventLoop | None
    holder: _Holder | None = None

    def close(self) -> None:
        """Close a session of the sync methods."""
        self.chat.close()
        self._leave_holder()

    def close_soon(self) -> None:
        """Close the session without waiting. A loop that has ended has closed it already."""
        if self.loop is None:
            threading.Thread(target=self.close, daemon=True, name="rlm-close").start()
        elif self.loop.is_running():
            asyncio.run_coroutine_threadsafe(self._aclose_here(), self.loop)

    async def aclose(self) -> None:
        """Close the session, and wait for it unless it belongs to another loop."""
        if self.loop is None:
            await in_thread(self.close)
        elif self.loop is running_loop():
            await self._aclose_here()
        else:
            self.close_soon()

    async def _aclose_here(self) -> None:
        await self.chat.aclose()
        self._leave_holder()

    def _leave_holder(self) -> None:
        """The holder lives as long as its loop, and a session refers to its engine and document."""
        if self.holder is not None and self.holder.chat is self.chat:
            self.holder.chat = None


class RLMChatEngine(WithRuns, BaseChatEngine):
    """A conversation over documents. Create it with `from_defaults`, `from_rlm` or
    `RLMQueryEngine.as_chat_engine`.

    Follow-up questions work: the model that writes code keeps its messages and the variables of its
    REPL. A session belongs to the event loop on which it began. If a message is sent from another
    loop, with another `chat_history`, or after the text of an index has changed, a new session
    begins: it receives the conversation so far, but variables are lost.

    Use it with `with` or `async with`, or call `close` or `aclose`: the REPL is a process.

    Args:
        runs: The runs of this engine.
        source: The documents.
        chat_history: The conversation before the first message.
        callback_manager: LlamaIndex's callbacks; default: those of `Settings`.
    """

    def __init__(
        self,
        runs: Runs,
        source: "BoundTexts | IndexTexts",
        *,
        chat_history: Sequence[ChatMessage] | None = None,
        callback_manager: "CallbackManager | None" = None,
    ) -> None:
        self.callback_manager = callbacks(callback_manager)
        self._runs = runs
        self._runs.callbacks = lambda: listening(self.callback_manager)
        self._source = source
        self._lock = threading.Lock()
        self._open = PerLoop(_Holder, _Holder.aclose)
        self._history = list(chat_history or ())
        self._talk: _Talk | None = None

    @classmethod
    def from_defaults(
        cls,
        documents: object = None,
        *,
        nodes: Sequence[object] | None = None,
        index: "BaseIndex[Any] | None" = None,
        llm: object = None,
        sub_llm: object = None,
        chat_history: Sequence[ChatMessage] | None = None,
        callback_manager: "CallbackManager | None" = None,
        **rlm_options: Any,
    ) -> Self:
        """A chat engine over documents, nodes or an index, with the arguments of
        `RLMQueryEngine.from_defaults`.

        Raises:
            InputError: An argument is invalid.
        """
        sources = {"documents": documents, "nodes": nodes, "index": index}
        runs, source = source_of(sources, llm, sub_llm, None, rlm_options, ["chat_history"])
        return cls(runs, source, chat_history=chat_history, callback_manager=callback_manager)

    @classmethod
    def from_rlm(
        cls,
        rlm: "RLM",
        documents: object,
        *,
        chat_history: Sequence[ChatMessage] | None = None,
        callback_manager: "CallbackManager | None" = None,
    ) -> Self:
        """A chat engine that uses this RLM, over these documents."""
        return cls.from_defaults(
            documents, llm=rlm, chat_history=chat_history, callback_manager=callback_manager
        )

    @property
    def chat_history(self) -> list[ChatMessage]:
        """The conversation so far."""
        with self._lock:
            return list(self._history)

    def chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> AgentChatResponse:
        """The answer to a message. A `chat_history` replaces the conversation so far."""
        return _response(self._answer(message, chat_history))

    async def achat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> AgentChatResponse:
        """The same on the caller's event loop."""
        return _response(await self._aanswer(message, chat_history))

    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """The answer as a stream, which begins when the answer is complete."""
        return _streaming(self._answer(message, chat_history), is_async=False)

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """The same on the caller's event loop."""
        return _streaming(await self._aanswer(message, chat_history), is_async=True)

    def reset(self) -> None:
        """Begin a new conversation, without history and variables.

        The REPL's process is stopped without waiting for its end.
        """
        if (talk := self._forget()) is not None:
            talk.close_soon()

    def close(self) -> None:
        """Stop the REPL; the history is kept, and the next message begins a new session."""
        if (talk := self._let_go()) is None:
            return
        if talk.loop is None:
            talk.close()
        else:
            talk.close_soon()

    async def aclose(self) -> None:
        """The same on the caller's event loop."""
        if (talk := self._let_go()) is not None:
            await talk.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _answer(
        self, message: str, chat_history: Sequence[ChatMessage] | None
    ) -> EvidenceOfRun | None:
        reporter, rlm = ProgressReporter(), self._runs.rlm
        self._runs.question(QueryBundle(message))
        texts, result = portal().run(self._source.open()), None
        talk, question, old = self._session(rlm, texts, message, chat_history, None)
        if old is not None:
            old.close_soon()
        portal().run(self._hold(talk))
        if not texts.is_blank:
            with closing(
                cast("Generator[Event]", talk.chat.stream(question, only=is_progress))
            ) as events:
                for event in events:
                    result = self._runs.note(event, reporter) or result
        answer = found(result, talk.texts) if result is not None else None
        self._remember(message, answer)
        return answer

    async def _aanswer(
        self, message: str, chat_history: Sequence[ChatMessage] | None
    ) -> EvidenceOfRun | None:
        reporter, rlm = ProgressReporter(), self._runs.rlm
        self._runs.question(QueryBundle(message))
        texts, result = await self._source.open(), None
        talk, question, old = self._session(
            rlm, texts, message, chat_history, asyncio.get_running_loop()
        )
        if old is not None:
            await old.aclose()
        await self._hold(talk)
        if not texts.is_blank:
            async with aclosing(talk.chat.astream(question, only=is_progress)) as events:
                async for event in events:
                    result = self._runs.note(event, reporter) or result
        answer = await in_thread(found, result, talk.texts) if result is not None else None
        self._remember(message, answer)
        return answer

    async def _hold(self, talk: _Talk) -> None:
        """Register the session to be closed when the running loop ends or this engine is garbage
        collected.
        """
        talk.holder = await self._open.get()
        talk.holder.chat = talk.chat

    def _session(
        self,
        rlm: "RLM",
        texts: "Texts",
        message: str,
        chat_history: Sequence[ChatMessage] | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> tuple[_Talk, str, _Talk | None]:
        """The session for a message, its question, and the session that it replaces."""
        with self._lock:
            talk = self._talk
            is_other = (
                talk is None
                or talk.texts.corpus is not texts.corpus
                or talk.rlm is not rlm
                or talk.loop is not loop
            )
            if chat_history is not None and _as_pairs(chat_history) != _as_pairs(self._history):
                self._history, is_other = list(chat_history), True
            question = self._runs.question(QueryBundle(message))
            if not is_other and talk is not None:
                return talk, question, None
            new = self._talk = _Talk(rlm.session(texts.corpus), texts, rlm, loop)
            return new, _with_history(self._history, question), talk

    def _remember(self, message: str, answer: EvidenceOfRun | None) -> None:
        said = response_text(answer)
        with self._lock:
            self._history += [
                ChatMessage(message, role=MessageRole.USER),
                ChatMessage(said, role=MessageRole.ASSISTANT),
            ]

    def _let_go(self) -> _Talk | None:
        with self._lock:
            talk, self._talk = self._talk, None
            return talk

    def _forget(self) -> _Talk | None:
        with self._lock:
            self._history.clear()
        return self._let_go()


def _as_pairs(history: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    return [(message.role.value, message.content or "") for message in history]


def _with_history(history: Sequence[ChatMessage], question: str) -> str:
    """The question, preceded by the end of the earlier conversation."""
    if not history:
        return question
    lines = "\n".join(f"{role.capitalize()}: {content}" for role, content in _as_pairs(history))
    cut = f"…{lines[-_MAX_HISTORY_CHARS:]}" if len(lines) > _MAX_HISTORY_CHARS else lines
    return f"The conversation so far:\n{cut}\n\nThe question now: {question}"


def _response(answer: EvidenceOfRun | None) -> AgentChatResponse:
    nodes, metadata = (answer.nodes, metadata_of(answer.result)) if answer is not None else ([], {})
    return AgentChatResponse(response_text(answer), source_nodes=nodes, metadata=metadata)


def _streaming(answer: EvidenceOfRun | None, *, is_async: bool) -> StreamingAgentChatResponse:
    text = response_text(answer)
    response = StreamingAgentChatResponse(
        text, source_nodes=answer.nodes if answer is not None else [], is_writing_to_memory=False
    )
    if is_async:
        response.achat_stream = _adeltas(text)
    else:
        response.chat_stream = _deltas(text)
    # Its class has no such field
    vars(response)["metadata"] = metadata_of(answer.result) if answer is not None else {}
    return response


def _delta(piece: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(piece, role=MessageRole.ASSISTANT), delta=piece)


def _deltas(text: str) -> Generator[ChatResponse, None, None]:
    yield from map(_delta, pieces(text))


async def _adeltas(text: str) -> AsyncGenerator[ChatResponse, None]:
    async for piece in apieces(text):
        yield _delta(piece)
