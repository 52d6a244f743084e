"""The recorder: what it refuses to record, and its errors for requests that do not match."""

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from vcr.request import Request as WireRequest
from vcr.serialize import deserialize, serialize

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.frameworks.langchain import LangChainLM
from rlm_integrations.records import Message, Request
from tests.cassettes import __main__ as program
from tests.cassettes import canonical, recorder, studio
from tests.cassettes.canonical import BASE_URL, CALL, CassetteError
from tests.cassettes.recorder import path_header, recording, replaying
from tests.cassettes.scenes import (
    KEY,
    LINES,
    MODEL,
    PLANTS,
    Provider,
    Scene,
    answer_in,
    chat_openai,
)
from tests.standin import Fault

Cassette = dict[str, Any]

SCENES = {scene.file: scene for scene in studio.scenes()}
SYNC = SCENES["langchain/sync.json"]
RECORDED = [scene for scene in SCENES.values() if scene.name in {"sync", "async", "streaming"}]
each_scene = pytest.mark.parametrize("scene", RECORDED, ids=lambda scene: scene.file)


def altered(scene: Scene, folder: Path, alter: Callable[[list[Any]], None]) -> Path:
    """A folder with a cassette of this scene whose calls are changed by `alter`."""
    cassette = json.loads((studio.FOLDER / scene.file).read_text())
    alter(cassette["interactions"])
    path = folder / scene.file
    path.parent.mkdir()
    path.write_text(json.dumps(cassette))
    return folder


def place_of(path: str, calls: list[Any]) -> int:
    """The position of the call whose path has this ending."""
    return next(
        index
        for index, each in enumerate(calls)
        if each["request"]["headers"][CALL][0].endswith(path)
    )


@each_scene
@pytest.mark.parametrize("path", ["r:t1", ".2", "r:t2"])
def test_a_changed_prompt_fails_and_names_the_call(scene: Scene, path: str, tmp_path: Path) -> None:
    """A changed prompt of the root's first or last call, or of a call of its code, is an error with
    its path, the recorded text and the sent text.
    """

    def change(calls: list[Any]) -> None:
        message = calls[place_of(path, calls)]["request"]["body"]["messages"][-1]
        message["content"] += " (as it once was)"

    with pytest.raises(CassetteError, match=rf"^{scene.name}\.json: r") as caught:
        studio.replay(scene, altered(scene, tmp_path, change))
    first, *rest = str(caught.value).splitlines()
    assert first.endswith(f"{path}: the cassette does not hold this call")
    changed = [line for line in rest if line.startswith(("-  ", "+  "))]
    assert [line[0] for line in changed] == ["-", "+"]
    assert changed[0].replace(" (as it once was)", "")[1:] == changed[1][1:]


@each_scene
def test_a_missing_call_fails_and_names_the_call(scene: Scene, tmp_path: Path) -> None:
    """A call that is not in the cassette is an error with its path and that of the most similar
    recorded call.
    """
    with pytest.raises(
        CassetteError,
        match=r"r\.b1/b\w+\.2: the cassette does not hold this call; nearest to it is r\.b1/b\w+\.\d",
    ):
        studio.replay(
            scene, altered(scene, tmp_path, lambda calls: calls.pop(place_of(".2", calls)))
        )


@each_scene
def test_an_unused_call_fails_and_names_the_call(scene: Scene, tmp_path: Path) -> None:
    """A recorded call that is not made is an error."""

    def add(calls: list[Any]) -> None:
        calls.append(copy.deepcopy(calls[0]))
        calls[-1]["request"]["headers"][CALL] = ["r:t7"]

    with pytest.raises(CassetteError, match=r"holds what was not asked: r:t7$"):
        studio.replay(scene, altered(scene, tmp_path, add))


def test_no_answer_is_given_twice(tmp_path: Path) -> None:
    """A call that is made more often than recorded is an error."""
    with (
        pytest.raises(CassetteError, match=r"^sync\.json: r:t1: every call .* was made already"),
        replaying(studio.FOLDER / SYNC.file),
    ):
        for _ in range(2):
            SYNC.perform(Provider())


@pytest.mark.parametrize("api", ["invoke", "ainvoke"])
def test_a_missing_call_is_not_retried(api: str) -> None:
    """A missing call is raised at once, with its message, although openai 2 would retry after an
    exception.
    """
    model = type(chat_openai(Provider()))(
        model=MODEL, base_url=BASE_URL, api_key=KEY, max_retries=5
    )
    with pytest.raises(CassetteError, match=r"a call without a path: the cassette does not hold"):  # noqa: SIM117 - the tape is needed
        with replaying(studio.FOLDER / SYNC.file) as tape:
            try:
                asyncio.run(model.ainvoke("Hello?")) if api == "ainvoke" else model.invoke("Hello?")
            finally:
                assert len(tape.missed) == 1


def test_a_missing_cassette_is_an_error_with_instructions(tmp_path: Path) -> None:
    """A missing cassette is an error that says how to record it; nothing is recorded."""
    with pytest.raises(CassetteError, match="make record"):
        studio.replay(SYNC, tmp_path)


def test_hooks_change_nothing_the_second_time() -> None:
    """The hooks are idempotent, because vcrpy also calls them when it loads a cassette."""
    keep = canonical.request_hook("http://127.0.0.1:4242/v1")
    headers = {
        "X-RLM-Call": "r:t1",
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "Cookie": "a=b",
    }
    once = keep(
        WireRequest(
            "POST",
            "http://127.0.0.1:4242/v1/chat/completions",
            b'{"b": 1, "a": "\xc3\xa9"}',
            headers,
        )
    )
    kept = (once.uri, dict(once.headers), once.body)
    twice = keep(once)
    assert kept == (twice.uri, dict(twice.headers), twice.body)
    assert kept[0] == f"{BASE_URL}/chat/completions"
    assert kept[1] == {CALL: "r:t1", "content-type": "application/json"}
    response = {
        "status": {"code": 200, "message": "OK"},
        "headers": {"Set-Cookie": ["a=b"], "Retry-After": ["1"]},
        "body": {"string": b""},
    }
    assert canonical.response_hook(canonical.response_hook(response)) == canonical.response_hook(
        response
    )
    assert canonical.response_hook(response)["headers"] == {"retry-after": ["1"]}


@pytest.mark.parametrize(
    "path",
    sorted(studio.FOLDER.rglob("*.json")),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_loading_and_saving_keeps_a_cassette_unchanged(path: Path) -> None:
    """A cassette that vcrpy loads and saves is unchanged, byte for byte, including streams."""
    requests, responses = deserialize(path.read_text(), canonical)
    assert serialize({"requests": requests, "responses": responses}, canonical) == path.read_text()


def test_headers_and_compression_leave_no_trace(tmp_path: Path) -> None:
    """Cookies, dates, organisations and gzip in a provider's answers do not change the cassette."""
    headers = {
        "set-cookie": "session=1; Path=/",
        "openai-organization": "org-of-somebody",
        "date": "Mon, 01 Jan 2024 00:00:00 GMT",
    }
    studio.record(
        SYNC,
        tmp_path,
        headers=headers | {"server": "a-server", "x-request-id": "req_0123456789"},
        compress=True,
    )
    assert (tmp_path / SYNC.file).read_bytes() == (studio.FOLDER / SYNC.file).read_bytes()


def test_settings_of_the_user_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, organisations, addresses, proxies and tracing in the user's environment do not change
    the cassette.
    """
    for name in ("HTTP_PROXY", "http_proxy", "OPENAI_BASE_URL", "LANGSMITH_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "LANGSMITH_API_KEY"):
        monkeypatch.setenv(name, "sk-of-somebody-else")
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    studio.record(SYNC, tmp_path)
    assert (tmp_path / SYNC.file).read_bytes() == (studio.FOLDER / SYNC.file).read_bytes()


REPEATED = {
    "the key": {"faults": [Fault("echo_key", match="this?\nThe lily")]},
    "another key": {"scripts": {MODEL: lambda ask: "Your key is sk-other-0123456789."}},
    "an organisation": {
        "scripts": {MODEL: lambda ask: "Rate limit reached in organization org-0123456789abcdef."}
    },
    "the address": {"scripts": {MODEL: lambda ask: f"You have reached {ask.headers['host']}."}},
}


@pytest.mark.parametrize("what", REPEATED)
def test_a_provider_that_repeats_a_secret_is_not_recorded(what: str, tmp_path: Path) -> None:
    """If a body contains a secret, nothing is recorded, an existing cassette stays, and the error
    names the call.
    """
    path = tmp_path / "sync.json"
    path.write_text("what was there")
    with (  # noqa: SIM117
        SYNC.stand_in(**REPEATED[what]) as server,
        pytest.raises(CassetteError, match=r"a secret, or the address .* in r[.:]"),
    ):
        with recording(path, server.base_url, secrets=[KEY]):
            SYNC.perform(Provider(server.base_url))
    assert path.read_text() == "what was there"


def test_a_recording_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """A failed recording writes no cassette."""
    with pytest.raises(ModelError):
        studio.record(SYNC, tmp_path, api_key="another")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_calls_without_a_path_are_not_recorded(tmp_path: Path) -> None:
    """A call without a path is refused, because the replay could not identify it."""
    with (  # noqa: SIM117
        SYNC.stand_in(scripts={}) as server,
        pytest.raises(CassetteError, match="a call without a path"),
    ):
        with recording(tmp_path / "a.json", server.base_url, secrets=[]):
            chat_openai(Provider(server.base_url)).invoke("Hello?")


def test_a_scene_of_too_many_calls_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of calls of a cassette is limited, because finding a call takes linear time."""
    monkeypatch.setattr(recorder, "MOST", 7)
    with pytest.raises(CassetteError, match="would hold 7 calls"):
        studio.record(SYNC, tmp_path)


def test_requests_to_anywhere_else_are_refused(tmp_path: Path) -> None:
    """Requests to other hosts, such as telemetry, are neither recorded nor sent."""
    with (
        pytest.raises(CassetteError, match="no call of the provider: GET http://elsewhere"),
        recording(tmp_path / "a", BASE_URL, secrets=[]),
    ):
        httpx.get("http://elsewhere.invalid/count")


def test_our_own_client_is_recorded_and_replayed(tmp_path: Path) -> None:
    """`OpenAILM` is recorded over aiohttp, and sends its calls' paths with its `headers` option."""
    with SYNC.stand_in() as server, recording(tmp_path / "a.json", server.base_url, secrets=[KEY]):
        SYNC.check(own_client(server.base_url))
    with replaying(tmp_path / "a.json"):
        SYNC.check(own_client(BASE_URL))


def own_client(base_url: str) -> str:
    model = OpenAILM(MODEL, base_url=base_url, api_key=KEY, headers=path_header)
    return answer_in(RLM(model).completion(PLANTS, LINES))


async def test_the_path_is_added_whether_arguments_are_awaited_or_not() -> None:
    """The path header is sent only inside the block: the package itself does not know it."""
    request = Request((Message("user", "Hello?"),), path="r:t3")

    async def later(_self: object, request: Request) -> dict[str, Any]:
        return {"input": request.path}

    def now(_self: object, request: Request) -> dict[str, Any]:
        return {"input": request.path}

    expected = {"input": "r:t3", "extra_headers": {CALL: "r:t3"}}
    assert await recorder._with_path(later)(None, request) == expected
    assert recorder._with_path(now)(None, request) == expected
    before = LangChainLM.arguments
    with recorder.call_paths():
        assert LangChainLM.arguments is not before
    assert LangChainLM.arguments is before
    package = Path(__file__).parents[2] / "rlm_integrations"
    assert [path for path in package.rglob("*.py") if CALL in path.read_text()] == []


def test_a_provider_whose_key_is_set_is_recorded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make record` also records a provider whose key is set, and checks that the cassette
    replays.
    """
    monkeypatch.setattr(program, "scenes", lambda: [SYNC])
    with SYNC.stand_in() as server:
        for name, value in {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": server.base_url,
            "CASSETTES_MODEL": MODEL,
        }.items():
            monkeypatch.setenv(name, value)
        program.main(tmp_path)
    assert (tmp_path / "provider" / SYNC.file).read_bytes() == (tmp_path / SYNC.file).read_bytes()
    assert capsys.readouterr().out.splitlines() == [
        "   7 calls  langchain/sync.json",
        f"   7 calls  provider/langchain/sync.json, said by {MODEL}",
    ]
    monkeypatch.delenv("OPENAI_API_KEY")
    assert studio.provider_of_environment() is None


OTHERS = {
    "method": {"method": "PUT"},
    "address": {"uri": f"{BASE_URL}/completions"},
    "call": {"headers": {CALL: "r.b1/b0.18"}},
    "body": {"body": '{"a": 2}'},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_call_is_matched_by_all_its_parts(what: str) -> None:
    """A call with a different method, address, path or body does not match."""
    call = {
        "method": "POST",
        "uri": f"{BASE_URL}/chat/completions",
        "headers": {CALL: "r.b1/b0.17"},
        "body": '{"a": 1}',
    }
    assert canonical.is_same_call(WireRequest(**call), WireRequest(**call))
    assert not canonical.is_same_call(WireRequest(**call), WireRequest(**(call | OTHERS[what])))
