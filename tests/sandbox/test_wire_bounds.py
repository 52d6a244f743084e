"""Any value crosses in frames of bounded size, or is refused with an explanation; parts cannot be
made expensive.
"""

import asyncio
from typing import Any

import pytest

from rlm_integrations.records import Limits, LLMError, SpanRef, StoreObject
from rlm_integrations.sandbox import channel, sandbox_named, wire
from rlm_integrations.sandbox.base import Sandbox, Session
from rlm_integrations.sandbox.channel import Channel
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.encoder import Encoder, _join
from rlm_integrations.sandbox.wire import DEPTH_CAP, LENGTH, Opaque, WireError
from tests.sandbox.conftest import Opener, RecordingGate


@pytest.fixture
def sandbox() -> Sandbox:
    return sandbox_named("process")


def crossed(value: Any) -> Any:
    """The value that arrives; every frame is within the limits, because the encoder refuses
    others.
    """
    frames: list[bytes] = []
    Encoder().encode({"op": "answer", "value": value}, frames.append)
    decoder, message = Decoder(1 << 30), None
    for frame in frames:
        message = decoder.decode(frame[LENGTH.size :])
    assert message is not None
    return message["value"]


def stored(content: Any) -> StoreObject:
    return StoreObject(
        id="w_000001",
        type="t",
        description="d",
        content=content,
        backrefs=(),
        parents=(),
        tags=(),
        worker="w",
        seq=1,
        ts=0.0,
    )


VALUES = {
    "booleans": [False] * 200_000,
    "booleans and nothing": [True, None] * 250_000,
    "empty lists": [[]] * 250_000,
    "empty dicts": [{}] * 250_000,
    "empty texts": [""] * 250_000,
    "wide texts": ["\u6f22" * 256] * 10_000,
    "wider texts": ["\U0001f600" * 256] * 5_000,
    "control characters": ["\0" * 256] * 10_000,
    "quotes": ['"' * 256] * 10_000,
    "long numbers": [10**4_299] * 2_000,
    "fractions": [0.1] * 200_000,
    "spans": [SpanRef("s", 1, 2)] * 30_000,
    "errors": [LLMError("a", "b", 1)] * 30_000,
    "opaque values": [Opaque("T", "t")] * 30_000,
    "long keys": {f"{number:04}" + "k" * 1_500: number for number in range(900)},
    "a very long key": {"k" * 3_000_000: 1},
    "wide keys": {f"{number:03}" + "\U0001f600" * 250: None for number in range(1_000)},
    "dicts of dicts": {
        str(outer): {str(inner): None for inner in range(500)} for outer in range(500)
    },
    "small dicts of small dicts": {
        str(outer): {str(inner): "\u6f22" * 250 for inner in range(90)} for outer in range(90)
    },
    "records": [{"a": "x" * 200, "b": "y" * 200}] * 20_000,
    "keys of ours": [{"$a": 1}] * 50_000,
    "an object of the store": stored({"k" * 3_000_000: [None] * 190_000}),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", VALUES)
def test_a_value_crosses_whatever_its_parts_are(name: str) -> None:
    """The header's size is computed from its final text, so that every value fits into frames, and
    none is refused because of its shape.
    """
    assert crossed(VALUES[name]) == VALUES[name]


@pytest.mark.parametrize(
    "numbers", [[2**61 - 1], [1, 1 + 2**61 - 1], [200_000], [1, 2, 100_003], [-1], [0]]
)
def test_the_numbers_of_parts_follow_one_another(numbers: list[int]) -> None:
    """A part whose number is far from the earlier ones is invalid: such numbers could be chosen to
    make look-ups slow.
    """
    decoder = Decoder(1 << 30)
    with pytest.raises(WireError, match="out of sequence"):
        for number in numbers:
            decoder.decode(_join({"op": "part", "part": number, "items": []}, [])[LENGTH.size :])


def test_parts_of_threads_may_overtake_one_another() -> None:
    """Parts of several messages may arrive in any order of the sending threads, so a number may be
    lower than earlier ones.
    """
    decoder = Decoder(1 << 30)
    for number in (3, 1, 2, 500, 4):
        assert (
            decoder.decode(
                _join({"op": "part", "part": number, "items": [number]}, [])[LENGTH.size :]
            )
            is None
        )
    message = decoder.decode(
        _join({"op": "call", "args": [{"$l": number} for number in (1, 2, 3, 4, 500)]}, [])[
            LENGTH.size :
        ]
    )
    assert message == {"op": "call", "args": [[1], [2], [3], [4], [500]]}


def test_the_content_of_an_object_has_a_bounded_depth() -> None:
    """An object's content that parts nest too deep is invalid, as it is in one frame."""
    decoder = Decoder(1 << 30)
    inner: Any = []
    for number in range(1, DEPTH_CAP + 20):
        decoder.decode(_join({"op": "part", "part": number, "items": [inner]}, [])[LENGTH.size :])
        inner = {"$l": number}
    header = {"op": "call", "args": [{"$o": {**stored(0).to_dict(), "content": inner}}]}
    with pytest.raises(WireError, match="nests deeper"):
        decoder.decode(_join(header, [])[LENGTH.size :])


@pytest.mark.exhaustive
async def test_a_message_of_heavy_parts_is_decoded_in_a_thread(
    open_session: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the whole message, not of its last frame, decides whether it is decoded in a
    thread.
    """
    offloaded: list[int] = []
    offload = channel.runtime.offload

    def noted(function: Any, *args: Any) -> Any:
        if getattr(function, "__func__", None) is Decoder.decode:
            offloaded.append(len(args[0]))
        return offload(function, *args)

    monkeypatch.setattr(channel.runtime, "offload", noted)
    session: Session = await open_session()
    result = await session.execute("llm_batch([[]] * 500_000)", 1)
    assert result.error is None
    assert min(offloaded) < channel._OFF_LOOP_BYTES < sum(offloaded)


async def test_other_tasks_run_between_frames(open_session: Opener) -> None:
    """Other tasks run after every few frames, however fast the frames arrive."""
    session: Any = await open_session()
    turns, received = 0, session.channel.frames_received

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(beside())
    await session.execute(
        "for i in range(150): print(i, flush=True)\nfor i in range(600): llm_query('p')", 1
    )
    task.cancel()
    assert (
        turns
        >= (session.channel.frames_received - received) // channel._YIELD_FRAMES
        >= 600 // channel._YIELD_FRAMES
    )


@pytest.mark.parametrize(
    ("value", "limits", "reason"),
    [
        (10**5_000, Limits(), "Exceeds the limit"),
        ("x" * 3_000_000, Limits(message_bytes=2_000_000), "it takes more than 2,000,000 bytes"),
        (
            ["x" * 200_000] * 20,
            Limits(message_bytes=2_000_000),
            "it takes more than 2,000,000 bytes",
        ),
    ],
    ids=["digits", "text", "list"],
)
async def test_an_answer_that_cannot_be_sent_raises_in_the_code(
    open_session: Opener, gate: RecordingGate, value: Any, limits: Limits, reason: str
) -> None:
    """An answer that cannot be sent raises an exception in the code, and does not end the run."""
    gate.gifts["it"] = value
    session = await open_session(limits=limits)
    result = await session.execute(
        "try: give('it')\nexcept ValueError as error: print(error)\nprint(llm_query('p'))", 1
    )
    assert result.status == "ok"
    assert (
        f"the result of give is too large or nested too deep for the REPL: {reason}"
        in result.stdout
    )
    assert result.stdout.endswith("echo: p\n")


async def test_answers_are_packed_one_at_a_time(
    open_session: Opener, gate: RecordingGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls wait for large answers, only the frames of one answer exist at a time."""
    gate.gifts["it"] = stored("x" * 3_000_000)
    at_once = most = 0
    packed, write = Channel._pack, Channel._write

    async def counted(self: Channel, message: dict[str, Any]) -> list[bytes]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        return await packed(self, message)

    async def done(self: Channel, frames: list[bytes]) -> None:
        nonlocal at_once
        await write(self, frames)
        at_once -= 1

    monkeypatch.setattr(Channel, "_pack", counted)
    monkeypatch.setattr(Channel, "_write", done)
    session = await open_session()
    block = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as p: print(len(list(p.map(give, ['it'] * 16))))"
    result = await session.execute(block, 1)
    assert (result.stdout, most) == ("16\n", 1)


def test_a_large_object_is_packed_in_a_thread() -> None:
    """The size of an object of the store is the size of its content."""
    assert channel._is_large({"value": stored("x" * 300_000)})
    assert channel._is_large({"value": [stored([0] * 5_000)]})
    assert not channel._is_large({"value": stored("x")})


def test_numbers_of_any_length_have_a_weight() -> None:
    """A list of long numbers is split by the number of their digits."""
    frames: list[bytes] = []
    Encoder().encode({"op": "x", "value": [10**4_000] * 1_000}, frames.append)
    assert len(frames) > 10
    assert max(map(len, frames)) < wire.HEADER_CAP
