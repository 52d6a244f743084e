"""The committed cassettes: they replay without a network, are reproduced byte for byte, and contain
no secrets.
"""

import json
import re
import socket
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM
from rlm_integrations.lm.frameworks.langchain import adapt
from rlm_integrations.records import Message, Request
from tests.cassettes import studio
from tests.cassettes.canonical import CALL, HEADERS, SECRET
from tests.cassettes.recorder import MOST, replaying
from tests.cassettes.scenes import (
    KEY,
    LINES,
    SCENES,
    VOTE,
    VOTES,
    WIDE,
    Provider,
    Scene,
    answer_in,
    chat_openai,
    openai_like,
)

FILES = sorted(path for path in studio.FOLDER.rglob("*.json") if "provider" not in path.parts)
each_scene = pytest.mark.parametrize("scene", studio.scenes(), ids=lambda scene: scene.file)
each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}"
)

_tried: list[str] = []
_watching: list[bool] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook, which cannot be removed, so it acts only while a test enables it."""
    if not _watching:
        return
    is_look_up = event in {"socket.getaddrinfo", "socket.gethostbyname"}
    if is_look_up or (
        event in {"socket.connect", "socket.sendto", "socket.sendmsg"}
        and isinstance(args[1], tuple)
    ):
        _tried.append(event)
        raise RuntimeError("the network is closed")


sys.addaudithook(_watch)


@pytest.fixture
def closed_network() -> Iterator[list[str]]:
    """Refuse every connection, even to this machine, and every name look-up; yields the
    attempts.
    """
    _tried.clear()
    _watching.append(True)
    yield _tried
    _watching.clear()


def interactions(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["interactions"]


def call(interaction: dict[str, Any]) -> str:
    return interaction["request"]["headers"][CALL][0]


@each_scene
def test_a_scene_replays_with_the_network_closed(scene: Scene, closed_network: list[str]) -> None:
    """Every scene replays completely from its cassette, without any connection."""
    studio.replay(scene, studio.FOLDER)
    assert closed_network == []


def test_the_closed_network_is_closed(closed_network: list[str]) -> None:
    """The `closed_network` fixture notices a connection to this machine."""
    with socket.socket() as client, pytest.raises(RuntimeError, match="closed"):
        client.connect(("127.0.0.1", 9))
    assert closed_network == ["socket.connect"]


@pytest.mark.exhaustive
@each_scene
def test_recording_again_gives_the_same_bytes(scene: Scene, tmp_path: Path) -> None:
    """Recording a scene twice more, with answers in other orders, reproduces the committed cassette
    byte for byte.
    """
    for seed in (1, 2):
        studio.record(scene, tmp_path / str(seed), seed=seed)
        assert (tmp_path / str(seed) / scene.file).read_bytes() == (
            studio.FOLDER / scene.file
        ).read_bytes(), "run `make record`"


def test_each_scene_has_exactly_one_cassette() -> None:
    """There is exactly one cassette per scene."""
    assert {path.relative_to(studio.FOLDER).as_posix() for path in FILES} == {
        scene.file for scene in SCENES
    }


LEAKS = {
    "a key or the number of an organisation": SECRET,
    "a cookie or another header": re.compile(
        r"cookie|authorization|user-agent|stainless|cf-ray|x-request-id|openai-org", re.IGNORECASE
    ),
    "a host or port": re.compile(
        r"127\.0\.0\.1|::1|localhost|\b(?!provider\.invalid)[\w-]+\.(?:com|org|net|io|dev|local)\b|\w:\d{4,5}\b"
    ),
    "a date": re.compile(r"\b20\d\d-\d\d|GMT|\b1[5-9]\d{8}\b"),
    "a path of a machine": re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|var|work|Users)/"),
}


@each_file
@pytest.mark.parametrize("what", LEAKS)
def test_nothing_leaks_into_a_file(path: Path, what: str) -> None:
    """No cassette contains a secret, a cookie, a real host, a port, a date or a path of a
    machine.
    """
    text = path.read_text()
    assert KEY not in text
    assert LEAKS[what].findall(text) == []


@each_file
def test_a_file_is_small_and_has_only_allowed_headers(path: Path) -> None:
    """A cassette has fewer than a hundred calls, and only the three allowed headers."""
    kept = interactions(path)
    assert 0 < len(kept) < MOST
    assert path.stat().st_size < 100_000
    assert {
        name for each in kept for side in ("request", "response") for name in each[side]["headers"]
    } <= HEADERS


@pytest.mark.parametrize("name", ["batch", "llm_batch"])
@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_a_batch_repeats_prompts_and_each_call_has_its_own_answer(
    framework: str, name: str
) -> None:
    """Fifty calls with three different prompts get fifty answers, distinguished only by their
    paths.
    """
    asked = [
        each
        for each in interactions(studio.FOLDER / framework / f"{name}.json")
        if call(each) != "r:t1"
    ]
    texts = Counter(each["request"]["body"]["messages"][0]["content"] for each in asked)
    answers = {
        each["response"]["body"]["json"]["choices"][0]["message"]["content"] for each in asked
    }
    assert sorted(texts.values()) == [16, 17, 17]
    assert answers == {f"said to {call(each)}" for each in asked}
    assert len(answers) == 50


@pytest.mark.parametrize(
    "scene",
    [scene for scene in studio.scenes() if scene.name == "batch"],
    ids=lambda scene: scene.file,
)
async def test_the_async_api_makes_the_same_calls(scene: Scene) -> None:
    """A batch that was recorded with the sync API, in threads, replays completely with the async
    API.
    """
    model = {"langchain": chat_openai, "llama_index": openai_like}[scene.framework](Provider())
    with replaying(studio.FOLDER / scene.file):
        scene.check(answer_in(await RLM(model, **WIDE).acompletion(VOTES, LINES)))


async def test_calls_get_their_own_answers_in_any_order() -> None:
    """Each of fifty calls with three different prompts, sent from last to first, gets its own
    recorded answer.
    """
    path = studio.FOLDER / "langchain" / "batch.json"
    lm = adapt(chat_openai(Provider()))
    with replaying(path):
        for each in reversed(interactions(path)):
            messages = tuple(
                Message(message["role"], message["content"])
                for message in each["request"]["body"]["messages"]
            )
            said = await lm.complete(Request(messages, path=call(each)))
            assert said.text == (VOTE if call(each) == "r:t1" else f"said to {call(each)}")


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_a_refused_call_is_recorded_with_its_retry(framework: str) -> None:
    """A status 429 and the answer to its retry are recorded in order under one path, with the time
    to wait; the replay returns both.
    """
    statuses = defaultdict(list)
    for each in interactions(studio.FOLDER / framework / "rate_limit.json"):
        statuses[call(each)].append(
            (each["response"]["status"]["code"], "retry-after" in each["response"]["headers"])
        )
    assert [tries for tries in statuses.values() if len(tries) > 1] == [[(429, True), (200, False)]]


def test_a_stream_is_recorded_as_events() -> None:
    """ChatOpenAI(streaming=True) streams every call of a run, and the cassette has the complete
    streams.
    """
    for each in interactions(studio.FOLDER / "langchain" / "streaming.json"):
        assert each["request"]["body"]["stream"] is True
        assert each["response"]["headers"] == {"content-type": ["text/event-stream"]}
        events = each["response"]["body"]["events"]
        assert len(events) > 3
        assert events[-2:] == ["data: [DONE]", ""]
