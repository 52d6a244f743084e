"""The common part of the adapters of LangChain's and LlamaIndex's models: which method is called,
and how replies are parsed.

The sync API calls a model's synchronous method, in a thread for each call. The async API calls its
asynchronous method, on the one event loop that its client is tied to (see `home_loop`); on any
other loop, and if the class does not implement an asynchronous method, in threads too. The
exception is a client that works on every loop: it is always called asynchronously.

For users this means: a cancelled or timed-out call of the async API is aborted; a call in a thread
cannot be stopped, and ends by its own timeout. The user's object is never changed: retries of its
own (`max_retries`) add to those of this library, which cannot see them; with `max_retries=0` this
library retries, and slows down all calls when a provider reports overload.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from rlm_integrations._concurrency.portal import on_portal
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import ModelError
from rlm_integrations.lm._replies import completion_or_error
from rlm_integrations.lm.frameworks.errors import failure_of
from rlm_integrations.lm.frameworks.home_loop import (
    HomeLoop,
    home_of,
    is_at_home_everywhere,
    per_object,
)
from rlm_integrations.lm.frameworks.identity import identity_of
from rlm_integrations.records import BOUND, Completion, Request, Usage

Reply = TypeVar("Reply")

RESERVED_PARAMS = frozenset(
    {"callbacks", "config", "input", "messages", "model", "n", "stream", "stream_options"}
)  # parameters that the adapter sets
# Names of the bound on a reply's tokens
BOUNDS = (BOUND, "max_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict")
# Providers' finish reasons, in lower case, and OpenAI's equivalents.
FINISH_REASONS = {
    **dict.fromkeys(("complete", "done", "end_turn", "eos", "eos_token", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_output_tokens", "max_tokens", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(
        ("blocklist", "content_filtered", "guardrail_intervened", "prohibited_content"),
        "content_filter",
    ),
    **dict.fromkeys(("recitation", "refusal", "safety", "spii"), "content_filter"),
    "tool_use": "tool_calls",
}


class ForeignLM(ABC, Generic[Reply]):
    """A model of another framework as an `LM`.

    Args:
        model: The model itself, or the object around several.
        ask: The synchronous method, of the model or of the object that it is bound in.
        ask_async: The asynchronous one; None if it would only call the other.
        name: The model's name.
        context_window: How many tokens it reads at once, if the object states it.
        clients: The objects that own the HTTP clients; by default only the model.
    """

    def __init__(
        self,
        model: object,
        *,
        ask: Callable[..., Reply],
        ask_async: Callable[..., Awaitable[Reply]] | None,
        name: str,
        context_window: int | None,
        clients: Sequence[object] = (),
    ) -> None:
        self.name = name
        self.context_window = context_window
        self.model = model
        self._identified = model
        self._call = ask
        self._call_async = ask_async
        self._homes: list[HomeLoop] = []
        self._clients = clients or [model]
        self._bound_to_loops = [each for each in self._clients if not is_at_home_everywhere(each)]
        self.reply_tokens = own_bound(model)
        # All adapters of one object share its limits.
        self.limit_key = per_object("limits", model, object)

    def cache_identity(self, request: Request) -> object:
        """The object's class and settings; see `CacheableLM`.

        Raises:
            InputError: They cannot be told.
        """
        del request  # all of it that is sent is in the key anyway
        return identity_of(self._identified)

    async def complete(self, request: Request) -> Completion:
        """The model's answer.

        Raises:
            ModelError: The call failed; the types are those of `OpenAILM`, as far as the
                framework's errors show them, and "error".
        """
        if wrong := RESERVED_PARAMS & request.params.keys():
            raise ModelError(
                f"params must not contain {sorted(wrong)}: the library sets them itself",
                type="input",
            )
        try:
            return self.completion(await self._ask(await self.arguments(request)))
        except Exception as error:  # noqa: BLE001
            # Raised as a ModelError below: this one, which may show the key, would be its context
            secrets = [secret for each in self._clients for secret in _secrets(each)]
            failure = failure_of(error, repr(self.name), secrets=secrets)
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame, and so the user's object

    async def _ask(self, arguments: Mapping[str, Any]) -> Reply:
        if self._call_async is not None:
            if not self._bound_to_loops:
                return await self._call_async(**arguments)
            if not on_portal():
                self._homes = self._homes or [home_of(each) for each in self._bound_to_loops]
                # A list, not a generator: each has to record the loop
                if all([await home.is_here() for home in self._homes]):
                    try:
                        return await self._call_async(**arguments)
                    except NotImplementedError:  # many integrations lack one of the methods
                        self._call_async = None
                    finally:
                        for home, each in zip(self._homes, self._bound_to_loops, strict=True):
                            home.note(each)
        return await in_thread(self._call, **arguments)

    @abstractmethod
    async def arguments(self, request: Request) -> dict[str, Any]:
        """The arguments of both methods."""

    @abstractmethod
    def completion(self, reply: Reply) -> Completion:
        """The completion in a reply.

        Raises:
            ModelError: It has no answer.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def params_of(request: Request, bound: str | None) -> dict[str, Any]:
    """The request's parameters, with its reply bound under the name that the class accepts, if
    any.
    """
    params = {name: value for name, value in request.params.items() if name != BOUND}
    if bound is not None and BOUND in request.params:
        params[bound] = request.params[BOUND]
    return params


def own_bound(model: object) -> int | None:
    """The bound on a reply's tokens that the user set; a class's default does not count."""
    fields = getattr(type(model), "model_fields", {})
    given = [
        getattr(model, name, None)
        for name in BOUNDS
        if name not in fields or getattr(model, name) != fields[name].default
    ]
    return min((each for each in given if type(each) is int and each > 0), default=None)


def completed(
    text: str | None, finish_reason: Any, refusal: Any, calls: Any, usage: Usage | None, model: str
) -> Completion:
    """The completion, with the provider's own finish reason.

    Raises:
        ModelError: As for `completion_or_error`.
    """
    word = getattr(finish_reason, "value", finish_reason)  # some are enums
    if not isinstance(word, str):
        return completion_or_error(text, None, refusal, calls, usage, model)
    return replace(
        completion_or_error(
            text, FINISH_REASONS.get(word.lower(), word.lower()), refusal, calls, usage, model
        ),
        finish_reason=word,
    )


def usage_from(
    input_tokens: Any,
    output_tokens: Any,
    cached_tokens: Any = 0,
    reasoning_tokens: Any = 0,
    cache_write_tokens: Any = 0,
) -> Usage | None:
    """The counts, or None if they are missing or invalid."""
    parts = (cached_tokens or 0, reasoning_tokens or 0, cache_write_tokens or 0)
    counts = (input_tokens, output_tokens, *parts)
    return (
        Usage(*counts) if all(isinstance(count, int) and count >= 0 for count in counts) else None
    )


def name_from(model: object, *attributes: str) -> str:
    """The model's name: the first of these attributes that is set, else the name of its class."""
    found = (getattr(model, attribute, None) for attribute in attributes)
    return next(
        (name.removeprefix("models/") for name in found if isinstance(name, str) and name),
        type(model).__name__,
    )


def _secrets(model: object) -> list[str]:
    """The keys in the object, or in its clients."""
    found = []
    clients = list((getattr(model, "__pydantic_private__", None) or {}).values())
    clients += [getattr(client, "_api_client", None) for client in clients]
    for name, value in (
        item for each in (model, *clients) for item in getattr(each, "__dict__", {}).items()
    ):
        if hasattr(value, "get_secret_value"):
            found.append(value.get_secret_value())
        elif name.endswith("api_key"):
            found.append(value)
    return [secret for secret in found if isinstance(secret, str)]
