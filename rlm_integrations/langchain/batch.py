"""A batch of prompts to one model as a LangChain Runnable: a reply or a typed error for each
prompt, in order.
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
from rlm_integrations.lm.batch import allm_batch_iter
from rlm_integrations.lm.batch_options import BatchOptions
from rlm_integrations.lm.reply_cache import ReplyCache
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import LLMError, Message

ROLES = {"ai": "assistant", "human": "user", "system": "system"}
_REPORTED = (BatchStarted, BatchProgress, BatchFinished)


class LLMBatchInput(RootModel[list[Any]]):
    """Prompts: strings, messages, lists of messages, or prompt values."""


class LLMBatchOutput(RootModel[list[str]]):
    """A reply for each prompt, in order."""


class LLMBatchRunnable(PortalRunnable[list[str]]):
    """Sends a list of prompts to a model, with bounded concurrency, behind the limiter that all of
    this library's calls of that model share.

    A prompt is a string, messages, or a prompt value. There is one reply for each, in order; a
    failed one is an `LLMError`: a string that begins with "Error:", with `.type`, `.message` and
    `.retries`. `stream` yields replies in order, as soon as they arrive.

    Args:
        llm: A chat model, or any other model that `RLM` accepts.
        max_concurrent: The maximum number of calls in flight; `max_concurrency` of a configuration
            can lower it.
        timeout: Seconds that one attempt of a call may take.
        dedupe: Whether to send identical prompts only once.
        cache: A `storage.Storage` that keeps replies for later batches and runs.
        params: Parameters of every call, under the provider's names.
        retry: When failed calls are retried; `rlm_integrations.lm.asker.Retry(failures=0,
            refusals=0, timeouts=0)` disables retries.
        on_error: "return" puts an `LLMError` in the slot of each failed reply; "raise" raises a
            `ModelError` for the first failure and cancels the rest, so that `with_retry` and
            `with_fallbacks` see it.
        stream_tokens: Whether the model's tokens are part of the messages that a graph streams to
            its user.

    Raises:
        InputError: An argument is invalid.
    """

    llm: Any
    max_concurrent: int = 10
    timeout: float | None = None
    dedupe: bool = False
    cache: Any = None
    params: dict[str, Any] | None = None
    retry: Retry | None = None
    on_error: Literal["return", "raise"] = "return"
    stream_tokens: bool = False

    _cached: tuple[object, LM] | None = PrivateAttr(None)

    def __init__(
        self,
        llm: object,
        *,
        max_concurrent: int = 10,
        timeout: float | None = None,
        dedupe: bool = False,
        cache: ReplyCache | None = None,
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
            "cache": cache,
            "params": params,
            "retry": retry,
        }
        shown = {"on_error": on_error, "stream_tokens": stream_tokens, "name": name}
        super().__init__(**{"llm": model_of(llm), **options, **shown})
        self._lm()

    @property
    @override
    def InputType(self) -> Any:
        """The type of the input."""
        return list[Any]

    @property
    @override
    def OutputType(self) -> Any:
        """The type of the output."""
        return list[str]

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The schema of the input."""
        return LLMBatchInput

    @override
    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The schema of the output."""
        return LLMBatchOutput

    def _lm(self) -> LM:
        """The model, resolved again if `llm` was reassigned."""
        if self._cached is None or self._cached[0] is not self.llm:
            self._cached = (self.llm, traced(resolve(model_of(self.llm))))
        return self._cached[1]

    def _parse_input(self, given: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        if not isinstance(given, list | tuple):
            raise InputError(
                f"a batch is a list of prompts, not a {type(given).__name__}; for a single "
                "prompt, write [prompt]"
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
        """The replies in order, each as soon as it and all earlier ones have arrived."""
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
        """Numbered replies in the order of arrival; reports progress."""
        Trace(manager, stream_tokens=self.stream_tokens).enter()
        reporter = ProgressReporter(config, has_handlers=bool(manager.handlers))
        events: list[Event] = []
        most = min(self.max_concurrent, config.get("max_concurrency") or self.max_concurrent)
        lm = self._lm()
        warn_of_slow([lm], min(most, len(prompts)))

        def note(event: Event) -> None:
            if isinstance(event, _REPORTED):
                events.append(event)

        options = BatchOptions(
            max_concurrent=most, timeout=self.timeout, dedupe=self.dedupe, cache=self.cache,
            params=self.params, retry=self.retry, on_event=note,
        )  # fmt: skip
        async with aclosing(
            allm_batch_iter([_prompt(each) for each in prompts], lm, **options)
        ) as replies:
            async for number, reply in replies:
                if self.on_error == "raise" and isinstance(reply, LLMError):
                    raise ModelError(f"prompt {number}: {reply.message}", type=reply.type)
                yield number, reply
                await _report(reporter, events)
        await _report(reporter, events)


async def _report(reporter: ProgressReporter, events: list[Event]) -> None:
    for event in events:
        if (progress := progress_of(event)) is not None:
            await reporter.report(progress)
    events.clear()


def _prompt(given: Any) -> Any:
    """A prompt in this library's form. An invalid one is returned unchanged: the batch reports the
    error in its slot.
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
            (
                "a prompt must be a string, or system, human and ai messages that hold only "
                f"text, not {type(error).__name__}: {error}"
            ),
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
