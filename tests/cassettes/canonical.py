"""The content of a cassette and its form: the same calls result in the same bytes, in any order.

Headers are filtered by an allow-list, because a deny-list is never complete: only `HEADERS` are
kept, which excludes keys, cookies, organisations, dates and server names. The provider's address
becomes one that does not exist. An answer's id and date, which differ at each recording, are
replaced, the id by the path of the call.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from vcr.request import Request

# Of every cassette; by RFC 6761 this name never exists
BASE_URL = "http://provider.invalid/v1"
CALL = "x-rlm-call"
HEADERS = {"content-type", "retry-after", CALL}
VERSION = 1
# Keys, and the ids of organisations, projects and requests, which providers often repeat in their
# errors.
SECRET = re.compile(r"\b(?:sk|org|proj|req)[-_][A-Za-z0-9_-]{8,}|\bBearer ")

Plain = dict[str, Any]


class CassetteError(AssertionError):
    """A request is not in the cassette, or must not be recorded; the message names the call."""


def request_hook(base_url: str) -> Callable[[Request], Request]:
    """A hook that reduces a request to this provider to its recorded form. It leaves that form
    unchanged, because loaded cassettes pass the hook too.
    """

    def keep(request: Request) -> Request:
        for base in (base_url, BASE_URL):
            if request.uri.startswith(f"{base}/"):
                request.uri = BASE_URL + request.uri.removeprefix(base)
                break
        else:
            raise CassetteError(
                f"a request that is no call of the provider: {request.method} {request.uri}"
            )
        request.headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower() in HEADERS
        }
        request.body = (
            None if request.body is None else json.dumps(json.loads(request.body), sort_keys=True)
        )
        return request

    return keep


def response_hook(response: Plain) -> Plain:
    """The recorded form of an answer; it leaves that form unchanged too."""
    return {
        **response,
        "headers": {
            name.lower(): value
            for name, value in response["headers"].items()
            if name.lower() in HEADERS
        },
    }


def is_same_call(one: Request, other: Request) -> bool:
    """Whether requests that passed the hook are the same call: the same path in the run and the
    same body.
    """
    return call_of(one) == call_of(other) and (one.method, one.path, one.body) == (
        other.method,
        other.path,
        other.body,
    )


def call_of(request: Request) -> str:
    """The path of a request's call, or a note that it has none."""
    return str(request.headers.get(CALL) or "a call without a path")


def serialize(cassette: Plain) -> str:
    """The text of a cassette."""
    kept = sorted(map(_written, cassette["interactions"]), key=_order)
    return json.dumps({"version": VERSION, "interactions": kept}, indent=1, sort_keys=True) + "\n"


def deserialize(text: str) -> Plain:
    """The data from which vcrpy makes requests and answers."""
    return {"interactions": [_read(each) for each in json.loads(text)["interactions"]]}


def _written(interaction: Mapping[str, Plain]) -> dict[str, Plain]:
    request, response = interaction["request"], interaction["response"]
    call = request["headers"].get(CALL, [""])[0]
    body = request["body"] and json.loads(request["body"])
    return {
        "request": {**request, "body": body},
        "response": {**response, "body": _parsed(response["body"]["string"], call)},
    }


def _read(interaction: Mapping[str, Plain]) -> dict[str, Plain]:
    request, response = interaction["request"], interaction["response"]
    body = request["body"] and json.dumps(request["body"], sort_keys=True)
    return {
        "request": {**request, "body": body},
        "response": {**response, "body": {"string": _text(response["body"])}},
    }


def _order(interaction: Mapping[str, Plain]) -> tuple[Any, ...]:
    """A sort key: address, call and body; attempts of the same call keep their order in time.

    Numbers in a path are compared as numbers.
    """
    request = interaction["request"]
    call = re.split(r"(\d+)", request["headers"].get(CALL, [""])[0])
    numbered = [int(part) if index % 2 else part for index, part in enumerate(call)]
    return request["uri"], numbered, json.dumps(request["body"], sort_keys=True)


def _parsed(text: str, call: str) -> Plain:
    """The body as JSON, as a stream's events, or else as plain text."""
    try:
        return {"json": _settled(json.loads(text), call)}
    except ValueError:
        if not text.startswith("data: "):
            return {"text": text}
    return {"events": [_event(each, call) for each in text.split("\n\n")]}


def _event(text: str, call: str) -> Any:
    try:
        return _settled(json.loads(text.removeprefix("data: ")), call)
    except ValueError:
        return text


def _settled(body: Any, call: str) -> Any:
    """The answer without the values that differ at each recording."""
    if isinstance(body, dict) and "id" in body:
        return {**body, "id": f"recorded-{call}", "created": 0}
    return body


def _text(body: Plain) -> str:
    if "json" in body:
        return json.dumps(body["json"])
    if "text" in body:
        return str(body["text"])
    return "\n\n".join(
        each if isinstance(each, str) else f"data: {json.dumps(each)}" for each in body["events"]
    )
