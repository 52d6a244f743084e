"""One prompt to one model."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlm_integrations._concurrency.portal import portal
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.asker import ModelCaller, Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.prompts import messages_of
from rlm_integrations.records import LLMError, Message, Request

PromptInput = str | Sequence[Message | Mapping[str, str]]


class Queryable:
    """Adds `query` and `aquery` to a model.

    They share its limiter with runs and batches, and retry like them.
    """

    __slots__ = ()

    async def aquery(
        self,
        prompt: PromptInput,
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of each attempt, not of the call
        retry: Retry | None = None,
    ) -> str:
        """The model's reply to one prompt, on the caller's event loop.

        Args:
            prompt: A string, or a list of `Message`s or {"role": …, "content": …} dicts.
            params: Further parameters, by the provider's names, such as {"temperature": 0}.
            timeout: Seconds that one attempt may take.
            retry: When a failed call is retried.

        Raises:
            InputError: The prompt is invalid.
            ModelError: The call failed, or its reply is unusable.
        """
        messages = messages_of(prompt)
        if isinstance(messages, LLMError):
            raise InputError(messages.message)
        asker = ModelCaller(cast("LM", self), timeout=timeout, retry=retry)
        record = await asker.ask(Request(messages, params or {}))
        if record.error is not None:
            raise ModelError(record.error.message, type=record.error.type)
        return record.reply

    def query(
        self,
        prompt: PromptInput,
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> str:
        """The model's reply to one prompt, for scripts, threads and notebooks; see `aquery`."""
        return portal().run(self.aquery(prompt, params=params, timeout=timeout, retry=retry))

    async def query_async(self, prompt: PromptInput) -> str:
        """The model's reply to one prompt: `aquery`, under the name that the original design
        used.
        """
        return await self.aquery(prompt)
