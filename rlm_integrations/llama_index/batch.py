"""Batches of prompts to one LlamaIndex model, with bounded concurrency."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from llama_index.core.base.llms.types import ChatMessage, TextBlock

from rlm_integrations.errors import InputError
from rlm_integrations.events import Emitter, Event
from rlm_integrations.faces.progress import progress_of
from rlm_integrations.llama_index._defaults import callbacks, default_llm
from rlm_integrations.llama_index._spans import HiddenFromSpans, spanned
from rlm_integrations.llama_index.fast import warn_of_slow
from rlm_integrations.llama_index.progress import ProgressReporter
from rlm_integrations.llama_index.traced import traced
from rlm_integrations.lm.batch import allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
from rlm_integrations.lm.batch_options import BatchOptions
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import Message

PromptInput = str | Sequence[ChatMessage | Message | Mapping[str, str]]
Prompts = Iterable[PromptInput] | AsyncIterable[PromptInput]


class LLMBatch:
    """Sends many prompts to one model. Replies are in the order of the prompts; a failed one is an
    `LLMError`.

    Args:
        llm: Any LlamaIndex `LLM`, or any other model that `RLM` accepts; LlamaIndex's default if
            omitted.
        options: The options of `allm_batch`, such as `max_concurrent`, `timeout` and `on_progress`.
            Each call can override them.
    """

    def __init__(self, llm: object = None, **options: Unpack[BatchOptions]) -> None:
        # Names are resolved once, here: a new model for each batch would open new connections each
        # time.
        self._llm = None if llm is None else traced(resolve(llm), partial(callbacks, None))
        self._options = _checked(options)

    def run(self, prompts: Prompts, **options: Unpack[BatchOptions]) -> list[str]:
        """The replies. A prompt is a string, or a list of `ChatMessage`s."""
        return self._run(HiddenFromSpans(prompts), **options)

    async def arun(self, prompts: Prompts, **options: Unpack[BatchOptions]) -> list[str]:
        """The same on the caller's event loop."""
        self._warn(options)
        return await self._arun(HiddenFromSpans(prompts), **options)

    def run_as_completed(
        self, prompts: Prompts, **options: Unpack[BatchOptions]
    ) -> Iterator[tuple[int, str]]:
        """Prompt numbers and replies, in the order of arrival. Closing the iterator cancels the
        calls in flight.

        In traces each call is a separate span, or inside the caller's span: a span of the batch
        could not stay open between replies.
        """
        return llm_batch_iter(_prompts(prompts), self._model(), **self._options_for(options))

    def arun_as_completed(
        self, prompts: Prompts, **options: Unpack[BatchOptions]
    ) -> AsyncGenerator[tuple[int, str], None]:
        """The same on the caller's event loop."""
        self._warn(options)
        return allm_batch_iter(_prompts(prompts), self._model(), **self._options_for(options))

    @spanned("run")
    def _run(self, prompts: HiddenFromSpans, **options: Unpack[BatchOptions]) -> list[str]:
        return llm_batch(_prompts(prompts.thing), self._model(), **self._options_for(options))

    @spanned("arun")
    async def _arun(self, prompts: HiddenFromSpans, **options: Unpack[BatchOptions]) -> list[str]:
        return await allm_batch(
            _prompts(prompts.thing), self._model(), **self._options_for(options)
        )

    def _warn(self, options: BatchOptions) -> None:
        both = {**self._options, **options}
        warn_of_slow([resolve(self._model())], int(str(both.get("max_concurrent", 10))))

    def _model(self) -> object:
        return default_llm() if self._llm is None else self._llm

    def _options_for(self, options: BatchOptions) -> BatchOptions:
        """All options, with progress reported to LlamaIndex."""
        both: BatchOptions = {**self._options, **_checked(options)}
        reporter = ProgressReporter()

        def hook(event: Event) -> None:
            if (progress := progress_of(event)) is not None:
                reporter(progress)

        return {**both, "on_event": Emitter(hook, both.get("on_event"))}


def _checked(options: BatchOptions) -> BatchOptions:
    if unknown := options.keys() - BatchOptions.__annotations__.keys():
        raise InputError(
            f"a batch has no option {', '.join(sorted(unknown))}; there are "
            f"{', '.join(BatchOptions.__annotations__)}"
        )
    return options


def _prompts(prompts: Any) -> Any:
    """The prompts with messages in this library's form. An argument that is not a collection of
    prompts is rejected by the batch itself.
    """
    if isinstance(prompts, str | bytes | Mapping):
        return prompts
    if isinstance(prompts, Sequence):
        return [_prompt(prompt) for prompt in prompts]
    if isinstance(prompts, AsyncIterable):
        return (_prompt(prompt) async for prompt in prompts)
    return map(_prompt, prompts) if isinstance(prompts, Iterable) else prompts


def _prompt(prompt: Any) -> Any:
    return [_message(message) for message in prompt] if isinstance(prompt, list | tuple) else prompt


def _message(message: Any) -> Any:
    """A LlamaIndex message in this library's form.

    A message with more than text is returned unchanged: the batch reports that it cannot be sent.
    """
    if not isinstance(message, ChatMessage):
        return message
    texts = [block.text for block in message.blocks if isinstance(block, TextBlock)]
    return (
        {"role": message.role.value, "content": "".join(texts)}
        if len(texts) == len(message.blocks)
        else message
    )
