"""Recording and replaying with vcrpy, and sending a call's path as a header, which only these tests
need.

    with recording(path, base_url, secrets=[key]): …     # each request goes to the provider, and is
    kept with its answer with replaying(path): …                              # none goes anywhere;
    the provider's address is `canonical.BASE_URL`

A request that is not in the cassette is refused with status 400, after which no client retries; its
error says what is missing, and so does a `CassetteError` at the end of the block. An answer that
was not requested is an error too.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import vcr
from vcr.cassette import Cassette
from vcr.request import Request as WireRequest
from vcr.stubs import aiohttp_stubs

from rlm_integrations.records import Request
from tests.cassettes import canonical
from tests.cassettes.canonical import BASE_URL, CALL, SECRET, CassetteError, call_of

MOST = 100  # requests in a cassette: finding one takes linear time
SHOWN = 12  # lines of the difference


class Tape(Cassette):
    """A vcrpy cassette whose errors name the missing call, and its difference from the most similar
    recorded one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.missed: list[str] = []

    def can_play_response_for(self, request: WireRequest) -> bool:
        return bool(super().can_play_response_for(request) or self.write_protected)

    def play_response(self, request: WireRequest) -> dict[str, Any]:
        if super().can_play_response_for(request):
            return super().play_response(request)
        self.missed.append(self._difference(self.filter_request(request)))
        body = json.dumps(
            {
                "error": {
                    "message": self.missed[-1],
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
            }
        )
        headers = {"content-type": ["application/json"]}
        return {
            "status": {"code": 400, "message": "Bad Request"},
            "headers": headers,
            "body": {"string": body.encode()},
        }

    @property
    def unplayed(self) -> list[WireRequest]:
        """The recorded requests that were not made."""
        return [
            request for index, request in enumerate(self.requests) if not self.play_counts[index]
        ]

    def _difference(self, request: WireRequest) -> str:
        call = call_of(request)
        left = {call_of(each): each for each in reversed(self.unplayed)}
        if not left:
            return f"{call}: every call that the cassette holds was made already"
        # Among all calls: which of them are left depends on the order in which calls come
        every = {call_of(each): each for each in reversed(self.requests)}
        nearest = (
            left.get(call) or every[(difflib.get_close_matches(call, every, 1) or list(left))[0]]
        )
        what = "" if call_of(nearest) == call else f"; nearest to it is {call_of(nearest)}"
        differ = list(
            difflib.unified_diff(
                _lines(nearest), _lines(request), "recorded", "asked", lineterm="", n=0
            )
        )
        rest = [f"… {len(differ) - SHOWN} more lines"] if len(differ) > SHOWN else []
        return "\n".join(
            [f"{call}: the cassette does not hold this call{what}", *differ[:SHOWN], *rest]
        )


def _lines(request: WireRequest) -> list[str]:
    head = [f"{request.method} {request.path}"]
    return (
        head
        if request.body is None
        else head + json.dumps(json.loads(request.body), indent=1).splitlines()
    )


@contextmanager
def recording(path: Path, base_url: str, *, secrets: Sequence[str]) -> Iterator[Tape]:
    """Record again. If the block fails, nothing is written, and an existing cassette stays.

    Raises:
        CassetteError: The cassette would contain a secret, the provider's address, a call without a
            path, or too many calls.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with call_paths(), _tape(fresh, base_url, "once") as tape:
        yield tape
        _check(tape, path, [*secrets, urlsplit(base_url).netloc])
    fresh.replace(path)


@contextmanager
def replaying(path: Path) -> Iterator[Tape]:
    """Replay a cassette, all of it.

    Raises:
        CassetteError: A request is not in the cassette, or a recorded call was not made.
    """
    if not path.is_file():
        raise CassetteError(f"there is no cassette {path.name}: `make record` makes it")
    with call_paths(), _tape(path, BASE_URL, "none") as tape:
        failure: BaseException | None = None
        try:
            yield tape
        except BaseException as error:  # noqa: BLE001 - raised again, or as what led to it
            failure = error
        if tape.missed:
            more = f"\n(and {len(tape.missed) - 1} more)" if tape.missed[1:] else ""
            raise CassetteError(f"{path.name}: {tape.missed[0]}{more}") from failure
        if failure is not None:
            raise failure
        if left := tape.unplayed:
            raise CassetteError(
                f"{path.name} holds what was not asked: {', '.join(map(call_of, left))}"
            )


@contextmanager
def _tape(path: Path, base_url: str, mode: str) -> Iterator[Tape]:
    recorder = vcr.VCR(
        before_record_request=canonical.request_hook(base_url),
        before_record_response=canonical.response_hook,
        decode_compressed_response=True,
        record_on_exception=False,
    )
    recorder.register_serializer("canonical", canonical)
    recorder.register_matcher("call", canonical.is_same_call)
    options = recorder.get_merged_config(
        path=str(path), serializer="canonical", match_on=["call"], record_mode=mode
    )
    with (
        mock.patch.object(
            aiohttp_stubs, "build_response", _with_raw_headers(aiohttp_stubs.build_response)
        ),
        Tape.use(**options) as tape,
    ):
        yield tape


def _with_raw_headers(build: Callable[..., Any]) -> Callable[..., Any]:
    """Before vcrpy 9, replayed answers of aiohttp have no `raw_headers`, which our own client
    reads.
    """

    def build_response(*args: Any) -> Any:
        response = build(*args)
        response._raw_headers = tuple(
            (name.encode(), value.encode()) for name, value in response.headers.items()
        )
        return response

    return build_response


def _check(tape: Tape, path: Path, secrets: Sequence[str]) -> None:
    if len(tape) >= MOST:
        raise CassetteError(
            f"{path.name} would hold {len(tape)} calls; make scenes of fewer than {MOST}"
        )
    for request, response in tape.data:
        if not request.headers.get(CALL):
            raise CassetteError(f"{path.name} would hold a call without a path: {request.body}")
        kept = f"{request.uri} {request.headers} {request.body} {response}"
        if SECRET.search(kept) or any(secret in kept for secret in secrets):
            raise CassetteError(
                f"{path.name} would hold a secret, or the address of the provider, in {call_of(request)}"
            )


@contextmanager
def call_paths() -> Iterator[None]:
    """Inside the `with`, the models of both frameworks send the path of each call as a header."""
    from rlm_integrations.lm.frameworks.langchain import LangChainLM

    adapters: list[Any] = [LangChainLM]
    if find_spec("llama_index"):
        from rlm_integrations.lm.frameworks.llama_index import LlamaIndexLM

        adapters.append(LlamaIndexLM)
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(
                mock.patch.object(adapter, "arguments", _with_path(adapter.arguments))
            )
        yield


def _with_path(arguments: Callable[..., Any]) -> Callable[..., Any]:
    def with_path(self: Any, request: Request) -> Any:
        found = arguments(self, request)
        return (
            _awaited(found, request)
            if inspect.isawaitable(found)
            else {**found, "extra_headers": path_header(request)}
        )

    return with_path


async def _awaited(found: Any, request: Request) -> dict[str, Any]:
    return {**await found, "extra_headers": path_header(request)}


def path_header(request: Request) -> dict[str, str]:
    """The header that distinguishes the calls of a run; `OpenAILM(headers=path_header)` sends it
    too.
    """
    return {CALL: request.path}
