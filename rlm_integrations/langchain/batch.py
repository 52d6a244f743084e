"""Many prompts to one model as a Runnable of LangChain: a reply or a typed error for each, in
order.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, PrivateAttr, RootModel
from typing_extensions import override

from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Event
from rlm_integrations.faces.progress import progress_of
from rlm_integrations.langchain.fast import warn_of_slow
from rlm_integrations.langchain.models import model_of
from rlm_integrations.langchain.portal_runnable import PortalRunnable
from rlm_integrations.langchain.progress import ProgressReporter
from rlm_integrations.langchain.trace import ChainRun, Trace, traced
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.batch import BatchOptions, allm_batch_iter
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import LLMError, Message

ROLES = {"ai": "assistant", "human": "user", "system": "system"}
_TOLD = (BatchStarted, BatchProgress, BatchFinished)


class LLMBatchInput(RootModel[list[Any]]):
    """Prompts: strings, messages, lists of messages, or what prompt templates give."""


class LLMBatchOutput(RootModel[list[str]]):
    """A reply for each prompt, in order."""


class LLMBatchRunnable(PortalRunnable[list[str]]):
    """Asks a model a list of prompts, a few at a time, behind the limiter that all of this
    library's calls of the model share.

    A prompt is a text, messages, or what a prompt template gives. There is one reply for each, in
    order; a failed one is an `LLMError`: a text that begins with "Error:", with `.type`, `.message`
    and `.retries`. `stream` gives replies, in order, as soon as they are there.

    Args:
        llm: A chat model, or any other that `RLM` takes.
        max_concurrent: How many calls are in flight at most; `max_concurrency` of a configuration
            may lower it.
        timeout: Seconds that one try of a call may take.
        dedupe: Whether to ask identical prompts once.
        params: Parameters of every call in the provider's names.
        retry: When failed calls are tried again; `rlm_integrations.lm.asker.Retry(failures=0,
            refusals=0, timeouts=0)` is for never.
        on_error: "return" leaves an `LLMError` in the place of each reply that failed; "raise"
            raises a `ModelError` for the first one and ends the rest, so that `with_retry` and
            `with_fallbacks` see it.
        stream_tokens: Whether tokens of the model go into the messages that a graph streams to its
            user.

    Raises:
        InputError: An argument cannot work.
    """

    llm: Any
    max_concurrent: int = 10
    timeout: float | None = None
    dedupe: bool = False
    params: dict[str, Any] | None = None
    retry: Retry | None = None
    on_error: Literal["return", "raise"] = "return"
    stream_tokens: bool = False

    _made: tuple[object, LM] | None = PrivateAttr(None)

    def __init__(
        self,
        llm: object,
        *,
        max_concurrent: int = 10,
        timeout: float | None = None,
        dedupe: bool = False,
        params: dict[str, Any] | None = None,
        retry: Retry | None = None,
        on_error: Literal["return", "raise"] = "return",
        stream_tokens: bool = False,
        name: str | None = None,
    ) -> None:
        if on_error not in ("return", "raise"):
            raise InputError(f"on_error={on_error!r}: choose 'return' or 'raise'")
        options = {
            "max_concurrent": max_concurrent,
            "timeout": timeout,
            "dedupe": dedupe,
            "params": params,
            "retry": retry,
        }
        shown = {"on_error": on_error, "stream_tokens": stream_tokens, "name": name}
        super().__init__(**{"llm": model_of(llm), **options, **shown})
        self._lm()

    @property
    @override
    def InputType(self) -> Any:
        """What it takes."""
        return list[Any]

    @property
    @override
    def OutputType(self) -> Any:
        """What it gives."""
        return list[str]

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """What it takes."""
        return LLMBatchInput

    @override
    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """What it gives."""
        return LLMBatchOutput

    def _lm(self) -> LM:
        """The model as it is now."""
        if self._made is None or self._made[0] is not self.llm:
            self._made = (self.llm, traced(resolve(model_of(self.llm))))
        return self._made[1]

    def _asked(self, given: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        if not isinstance(given, list | tuple):
            raise InputError(
                f"a batch is a list of prompts, not a {type(given).__name__}; for a single prompt, write [prompt]"
            )
        return given, {"prompts": len(given)}

    async def _whole(
        self, asked: Sequence[Any], manager: ChainRun, config: RunnableConfig
    ) -> list[str]:
        replies = [""] * len(asked)
        async with aclosing(self._replies(asked, manager, config)) as coming:
            async for number, reply in coming:
                replies[number] = reply
        return replies

    async def _parts(
        self, asked: Sequence[Any], manager: ChainRun, config: RunnableConfig
    ) -> AsyncGenerator[list[str], None]:
        """The replies in order, each as soon as it and those before it are there."""
        early: dict[int, str] = {}
        given = 0
        async with aclosing(self._replies(asked, manager, config)) as coming:
            async for number, reply in coming:
                early[number] = reply
                ready = []
                while given in early:
                    ready.append(early.pop(given))
                    given += 1
                if ready:
                    yield ready

    async def _replies(
        self, prompts: Sequence[Any], manager: ChainRun, config: RunnableConfig
    ) -> AsyncGenerator[tuple[int, str], None]:
        """Numbered replies as they come, with their progress told."""
        Trace(manager, stream_tokens=self.stream_tokens).enter()
        teller = ProgressReporter(config, has_handlers=bool(manager.handlers))
        events: list[Event] = []
        most = min(self.max_concurrent, config.get("max_concurrency") or self.max_concurrent)
        lm = self._lm()
        warn_of_slow([lm], min(most, len(prompts)))
        options = BatchOptions(
            max_concurrent=most, timeout=self.timeout, dedupe=self.dedupe, params=self.params, retry=self.retry,
            on_event=lambda event: events.append(event) if isinstance(event, _TOLD) else None,
        )  # fmt: skip
        async with aclosing(
            allm_batch_iter([_prompt(each) for each in prompts], lm, **options)
        ) as replies:
            async for number, reply in replies:
                if self.on_error == "raise" and isinstance(reply, LLMError):
                    raise ModelError(f"prompt {number}: {reply.message}", type=reply.type)
                yield number, reply
                await _tell(teller, events)
        await _tell(teller, events)


async def _tell(teller: ProgressReporter, events: list[Event]) -> None:
    for event in events:
        if (progress := progress_of(event)) is not None:
            await teller.tell(progress)
    events.clear()


def _prompt(given: Any) -> Any:
    """A prompt in this library's form; what cannot be one stays as it is, and gets its error from
    the batch.
    """
    if isinstance(given, LLMError):
        return given
    if isinstance(given, StringPromptValue):
        return given.text
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, BaseMessage):
        given = [given]
    if not isinstance(given, list | tuple):
        return given
    try:
        messages = convert_to_messages(given)
        return [Message(ROLES[message.type], _text(message)) for message in messages]  # type: ignore[arg-type] # one of `Role`
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        return LLMError(
            "input",
            f"a prompt is a text or messages of system, human and ai with texts, not {type(error).__name__}: {error}",
        )


def _text(message: BaseMessage) -> str:
    parts = message.content if isinstance(message.content, list) else [message.content]
    if others := {
        str(part.get("type"))
        for part in parts
        if not isinstance(part, str) and part.get("type") != "text"
    }:
        raise ValueError(f"a message with {', '.join(sorted(others))}")
    return str(message.text)
