"""Models behind OpenAI's Chat Completions API: OpenAI itself, vLLM, Ollama, gateways."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlm_integrations._concurrency.deadlines import end_after
from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations._concurrency.runtime import offload
from rlm_integrations._shared_copies import SharedCopies
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm._replies import Streamed, completion_of
from rlm_integrations.lm.openai.endpoint import Endpoint, Transport
from rlm_integrations.lm.openai.reply_bound import ReplyBound
from rlm_integrations.lm.query import Queryable
from rlm_integrations.records import Completion, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from rlm_integrations.lm.openai.client import OpenAIClient

OPENAI = "https://api.openai.com/v1"
TRANSPORTS = ("aiohttp", "sdk")
RESERVED_PARAMS = frozenset({"messages", "model", "n", "stream", "stream_options"})
SET_BY_LIBRARY = "the library sets messages, model, stream and n itself"
# Characters of a request: encoding more would block the loop
OFFLOAD_ABOVE_CHARS = 500_000


class OpenAILM(SharedCopies, Queryable):
    """A model behind OpenAI's Chat Completions API. `query` sends one prompt.

    Calls go out over aiohttp, with what the official SDK would send: its variables OPENAI_ORG_ID,
    OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, SSL_CERT_FILE and SSL_CERT_DIR apply. The SDK itself
    is only loaded for streams, for a proxy from the environment, and for OPENAI_LOG.

    It may be used on any number of event loops and threads: each loop has its own client, closed
    when the loop ends.

    Args:
        model: The provider's name for the model.
        base_url: The address of the API, without "/chat/completions"; OPENAI_BASE_URL or OpenAI
            itself by default.
        api_key: The key; OPENAI_API_KEY by default. Without one, OpenAI itself is refused here and
            not at the first call; a self-hosted server may need none. It never appears in a repr,
            error, log or pickle.
        transport: "aiohttp", or "sdk" for the official SDK and its default transport, which is
            slow in openai 2 with 50 or more concurrent calls.
        timeout: Seconds that one call may take; in a stream, that the next piece may take. None
            waits forever.
        context_window: How many tokens the model reads at once, if known.
        params: Parameters of every call, by the provider's names, such as `{"temperature": 0}`;
            those of a request override them.
        headers: Returns further headers for a call, given its request.
        client: Your `AsyncOpenAI` or `AsyncAzureOpenAI`, with its own address, authentication
            (also a function that returns tokens), headers and query. If it has its own
            `http_client`, that sends the calls, on one event loop at a time; otherwise each loop
            has its own connections. Its retries are off: this library has its own.

    Calls fail with a `ModelError` of one of these types; those marked * are `retryable`:
        rate_limit*, overloaded* (503), server* (other 5xx), timeout*, connection*,
        bad_response* (truncated JSON, no choices, an incomplete stream; a page instead of JSON is
        not retryable), empty* (no content; not retryable if it was truncated before its first
        word), refusal, tool_calls, auth, quota, not_found, bad_request, context_length, input (an
        invalid request).
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_client",
        "_clients",
        "_key",
        "base_url",
        "context_window",
        "headers",
        "name",
        "params",
        "timeout",
        "transport",
    )

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        transport: Transport = "aiohttp",
        timeout: float | None = 600.0,
        context_window: int | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Callable[[Request], Mapping[str, str]] | None = None,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        if transport not in TRANSPORTS:
            raise InputError(f"transport must be one of {TRANSPORTS}, not {transport!r}")
        if wrong := RESERVED_PARAMS & set(params or ()):
            raise InputError(f"params must not contain {sorted(wrong)}: {SET_BY_LIBRARY}")
        _check_above_zero("timeout", timeout)
        _check_above_zero("context_window", context_window)
        self.name = _checked_name(model)
        if client is not None:
            _check_client(client, base_url, api_key)
            base_url, key = str(client.base_url).rstrip("/"), client.api_key
        else:
            base_url = _checked_url(
                (os.environ.get("OPENAI_BASE_URL") or OPENAI) if base_url is None else base_url
            )
            key = _checked_key(api_key, base_url)
        self.base_url = base_url
        self.transport = transport
        self.timeout = timeout
        self.context_window = context_window
        self.params = dict(params or {})
        self.headers = headers
        self._bound = ReplyBound(self.base_url, self.params)
        self._key = key
        self._client = client
        endpoint = Endpoint(self.name, base_url, key, transport, timeout, client)
        self._clients = PerLoop(partial(_open, endpoint), _close)

    @property
    def limit_key(self) -> tuple[str, str, str]:
        """The key of the provider's limits: the address, a hash of the API key, and the model."""
        return self.base_url, hashlib.sha256(self._key.encode()).hexdigest()[:16], self.name

    @property
    def reply_tokens(self) -> int | None:
        """The bound on tokens of a reply in its own parameters, or None."""
        return self._bound.own

    def cache_identity(self, request: Request) -> object:
        """The address, the name and the parameters; see `CacheableLM`. Neither the key nor
        `headers` count.
        """
        del request  # all of it that is sent is in the key anyway
        return ["openai", self.base_url, self.name, self.params]

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        """Nothing: whether the server accepts a JSON schema is known after the first call; see
        `StructuredLM`.
        """

    async def prepare(self) -> None:
        """Make the running loop's client now; otherwise the first call does."""
        await (await self._clients.get()).prepare()

    async def complete(self, request: Request) -> Completion:
        """The model's answer; a truncated one has the `finish_reason` "length".

        Raises:
            ModelError: The call failed; the types are in the class's docstring.
        """
        client = await self._clients.get()
        await client.prepare()
        try:
            async with asyncio.timeout(None) as timeout:
                end_after(timeout, self.timeout)
                reply = await self._ask(client, request)
        except TimeoutError:
            raise ModelError(
                f"{self.name!r} did not answer in {self.timeout:g} s",
                type="timeout",
                retryable=True,
            ) from None
        return completion_of(reply, self.name)

    async def _ask(self, client: "OpenAIClient", request: Request) -> Any:
        """The response's JSON; the reply bound goes by the parameter that the server accepts."""
        while True:
            names = self._bound.names
            try:
                return await client.ask(
                    await self._body(request), self.headers(request) if self.headers else {}
                )
            except ModelError as error:
                is_refusal = error.type == "bad_request" and request.reply_tokens is not None
                if not is_refusal or not self._bound.learn(names, str(error)):
                    raise

    async def astream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """The pieces of the answer's text as they arrive, then the whole `Completion`.

        Raises:
            ModelError: As for `complete`; also after some pieces.
        """
        body = await self._body(request, stream=True, stream_options={"include_usage": True})
        client = await self._clients.get()
        streamed = Streamed(self.name)
        async with aclosing(
            client.stream(body, self.headers(request) if self.headers else {})
        ) as events:
            async for event in events:
                if piece := streamed.add(event):
                    yield piece
        yield streamed.completion()

    async def _body(self, request: Request, **more: Any) -> bytes:
        if wrong := RESERVED_PARAMS & request.params.keys():
            raise ModelError(
                f"params must not contain {sorted(wrong)}: {SET_BY_LIBRARY}", type="input"
            )
        messages = [
            {"role": message.role, "content": message.content} for message in request.messages
        ]
        params = self._bound.written({**self.params, **request.params}, request)
        if request.schema is not None:
            params["response_format"] = response_format(request.schema)
        body = {"model": self.name, "messages": messages, **params, **more}
        try:
            if sum(len(message.content) for message in request.messages) < OFFLOAD_ABOVE_CHARS:
                return _encode(body)
            return await offload(_encode, body)
        except UnicodeEncodeError as error:
            before, half = (
                error.object[max(0, error.start - 40) : error.start],
                error.object[error.start],
            )
            raise ModelError(
                (
                    f"the request is not valid Unicode: {before!r} is followed by {half!r}, half "
                    "of a surrogate pair"
                ),
                type="input",
            ) from None
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the request cannot be encoded as JSON: {error}", type="input"
            ) from None

    def __repr__(self) -> str:
        return f"OpenAILM({self.name!r}, base_url={self.base_url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the key: the process that loads the pickle takes its own from OPENAI_API_KEY."""
        if self._client is not None:
            raise InputError(f"{self!r} has a client, which cannot be pickled: make it anew there")
        fields = ("base_url", "transport", "timeout", "context_window", "params", "headers")
        return _restore, (self.name, {name: getattr(self, name) for name in fields})


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter of OpenAI's API that requests an answer in a JSON schema."""
    named = {"name": str(schema.get("title", "reply")), "schema": dict(schema), "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _restore(model: str, fields: dict[str, Any]) -> OpenAILM:
    return OpenAILM(model, **fields)


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _open(endpoint: Endpoint) -> "OpenAIClient":
    from rlm_integrations.lm.openai.client import OpenAIClient

    return OpenAIClient(endpoint)


async def _close(client: "OpenAIClient") -> None:
    await client.close()


def _check_client(client: object, base_url: object, api_key: object) -> None:
    openai = sys.modules.get("openai")  # whoever has a client has loaded it
    if openai is None or not isinstance(client, openai.AsyncOpenAI):
        raise InputError(f"client must be an openai.AsyncOpenAI, not {type(client).__name__}")
    if base_url is not None or api_key is not None:
        raise InputError("client has its own base_url and api_key: leave these arguments out")


def _check_above_zero(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise InputError(f"{name} must be a number greater than 0 or None, not {value!r}")


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name or name != name.strip():
        raise InputError(
            "a model's name must be a string without spaces around it, such as "
            f"'gpt-5-mini', not {name!r}"
        )
    return name


def _checked_url(url: str) -> str:
    """The address without a trailing slash."""
    hint = "a base_url looks like 'https://api.openai.com/v1' or 'http://localhost:8000/v1'"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{hint}, not {url!r}") from None
    if parts.username is not None or parts.password is not None:
        raise InputError("a base_url must not contain a user or password: pass the key as api_key")
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.query
        or parts.fragment
        or url != url.strip()
    ):
        raise InputError(f"{hint}, not {url!r}")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise InputError(f"{hint}: leave '/chat/completions' out of {url!r}")
    return url.rstrip("/")


def _checked_key(given: object, base_url: str) -> str:
    """The key, or "" if the server may not need one."""
    if given is None:
        given = os.environ.get("OPENAI_API_KEY", "")
    elif not isinstance(given, str) or not given.strip():
        raise InputError("api_key must be a non-empty string: leave it out to use OPENAI_API_KEY")
    key = str(given).strip()  # a key read from a file ends with a newline
    if not key and f".{urlsplit(base_url).hostname}".endswith(".openai.com"):
        raise InputError(
            "no key for OpenAI: pass api_key=…, set OPENAI_API_KEY, or use the model "
            "'offline', which needs none"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(
            "the key in api_key or OPENAI_API_KEY contains spaces or invalid characters"
        )
    return key
