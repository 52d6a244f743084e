"""One prompt to one model."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlm_integrations._concurrency.portal import portal
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.asker import ModelCaller, Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.prompts import messages_of
from rlm_integrations.records import LLMError, Message, Request

Prompt = str | Sequence[Message | Mapping[str, str]]


class Queryable:
    """Adds `query` and `aquery` to a model.

    They share its limiter with runs and batches, and retry as those do.
    """

    __slots__ = ()

    async def aquery(
        self,
        prompt: Prompt,
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of each try, not of the call
        retry: Retry | None = None,
    ) -> str:
        """The model's reply to one prompt, on the caller's event loop.

        Args:
            prompt: A string, or a list of `Message`s or {"role": …, "content": …} dicts.
            params: Further parameters in the provider's names, such as {"temperature": 0}.
            timeout: Seconds that one try may take.
            retry: When a failed call is tried again.

        Raises:
            InputError: The prompt cannot be sent.
            ModelError: The model did not answer usably.
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
        prompt: Prompt,
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> str:
        """The model's reply to one prompt, for scripts, threads and notebooks; see `aquery`."""
        return portal().run(self.aquery(prompt, params=params, timeout=timeout, retry=retry))

    async def query_async(self, prompt: Prompt) -> str:
        """The model's reply to one prompt: `aquery`, under the name that the original design used."""
        return await self.aquery(prompt)
