"""The rules of the wire format, tested as a hostile peer."""

import json
import struct
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.records import LLMError, SpanRef
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.encoder import Encoder, pack
from rlm_integrations.sandbox.wire import FRAME_CAP, HEADER_CAP, Opaque, WireError

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=600)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXTS
    | st.builds(SpanRef, TEXTS, st.integers(), st.integers())
    | st.builds(LLMError, TEXTS, TEXTS, st.integers())
    | st.builds(Opaque, TEXTS, TEXTS),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["a", "$b", "$x", "$l", "$d", "op"]) | TEXTS, inner, max_size=5
        )
    ),
    max_leaves=20,
)


def frames_of(message: dict[str, Any]) -> list[bytes]:
    frames: list[bytes] = []
    Encoder().encode(message, frames.append)
    return frames


def body(frame: bytes) -> memoryview:
    return memoryview(frame)[4:]


def crossed(message: dict[str, Any], part_cap: int | None = 1 << 30) -> dict[str, Any]:
    decoder = Decoder(part_cap)
    last = None
    for frame in frames_of(message):
        assert last is None
        assert struct.unpack_from(">I", frame)[0] == len(frame) - 4 <= FRAME_CAP
        last = decoder.decode(body(frame))
    assert last is not None
    return last


def raw(header: object, blobs: bytes = b"") -> bytes:
    """A hand-written frame, without its length."""
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">I", len(packed)) + packed + blobs


@given(VALUES)
def test_every_value_arrives_unchanged(value: Any) -> None:
    """Every value arrives unchanged, including its types, for any strings and keys."""
    message = crossed({"op": "x", "value": value})
    assert message == {"op": "x", "value": value}
    assert repr(message["value"]) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        ["p" * 100] * 100_000,
        ["p" * 10_000] * 1_000,
        "t" * 5_000_000,
        {"deep": [["x" * 900_000] * 5] * 5},
        {str(i): "v" * 5_000 for i in range(2_000)},
        LLMError("t", "m" * 3_000_000, 1),
        {f"a rather long key {i}": f"a short value {i}" for i in range(100_000)},
        {str(i): list(range(5_000)) for i in range(100)},
        ["é" * 700_000, "😀" * 700_000],
    ],
)
def test_large_values_cross_in_frames_under_the_cap(value: Any) -> None:
    """A value that is large because of many items or long strings is sent in parts below the frame
    limit.
    """
    assert crossed({"op": "x", "value": value})["value"] == value


def test_tuples_sets_and_odd_keys_become_plain(value: Any = None) -> None:
    """Tuples and sets arrive as lists, keys as strings, subclasses of str and numbers as their base
    type.
    """

    class Word(str):
        __slots__ = ()

    arrived = crossed({"op": "x", "value": [(1, 2), {3}, {4: 5}, Word("w"), True]})["value"]
    assert arrived == [[1, 2], [3], {"4": 5}, "w", True]
    assert type(arrived[3]) is str


def test_an_endless_value_is_refused() -> None:
    """A list that contains itself is an error, not an endless loop."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="deeper than 100"):
        frames_of({"op": "x", "value": loop})


def test_a_number_too_long_for_json_is_refused() -> None:
    """A number of ten thousand digits is an error on the sending side."""
    with pytest.raises(ValueError, match="digits"):
        frames_of({"op": "x", "value": 10**10_000})


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "does not parse"),
        (b"\0\0\0\xff{}", "header longer"),
        (struct.pack(">I", HEADER_CAP + 1) + b" " * (HEADER_CAP + 1), "header longer"),
        (raw(b"{"), "does not parse"),
        (raw(b"\xff\xfe"), "does not parse"),
        (raw([1]), "not a message"),
        (raw({"no": "op"}), "not a message"),
        (raw({"op": 5}), "not a message"),
        (raw({"op": "x", "v": {"$b": 10}}, b"short"), "blob longer"),
        (raw({"op": "x", "v": {"$b": -1}}), "blob longer"),
        (raw({"op": "x", "v": {"$b": True}}, b"a"), "blob longer"),
        (raw({"op": "x", "v": {"$b": 1.0}}, b"a"), "blob longer"),
        (raw({"op": "x"}, b"unclaimed"), "no blob claims"),
        (raw({"op": "x", "v": [{"$b": 3}, {"$b": 3}]}, b"abc"), "blob longer"),
        (raw({"op": "x", "v": {"$b": 2}}, b"\xff\xff"), "does not parse"),
        (raw({"op": "x", "v": {"$b": 1, "k": 1}}, b"a"), "a tag among keys"),
        (raw({"op": "x", "v": {"$l": 99}}), "malformed tag"),
        (raw({"op": "x", "v": {"$j": "1"}}), "malformed tag"),
        (raw({"op": "x", "v": {"$d": [["k"]]}}), "malformed tag"),
        (raw({"op": "x", "v": {"$d": [[{}, 1]]}}), "malformed tag"),
        (raw({"op": "x", "v": [[[]] * 3, {"$d": [["k", 1, 2]]}]}), "malformed tag"),
        (raw(b'{"op":"x","v":' + b"[" * 200 + b"]" * 200 + b"}"), "nests deeper"),
        (raw({"op": "x", "v": {"$d": 5}}), "malformed tag"),
        (raw({"op": "x", "v": {"$s": ["a", 1]}}), "malformed tag"),
        (raw({"op": "x", "v": {"$s": ["a", True, 2]}}), "malformed tag"),
        (raw({"op": "x", "v": {"$e": ["a", "b", "c"]}}), "malformed tag"),
        (raw({"op": "x", "v": {"$x": [1, 2]}}), "malformed tag"),
        (raw({"op": "x", "v": {"$evil": 1}}), "malformed tag"),
        (raw({"op": "part", "part": "1", "items": []}), "part without"),
        (raw({"op": "part", "part": True, "items": []}), "part without"),
        (raw({"op": "part", "part": 1, "items": "x"}), "part without"),
        (raw(b'{"op":"x","v":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "does not parse"),
        (raw(b'{"op":"x","v":' + b"9" * 100_000 + b"}"), "does not parse"),
    ],
)
def test_a_frame_that_breaks_the_rules_is_a_wire_error(frame: bytes, reason: str) -> None:
    """Wrong lengths, malformed tags and invalid JSON all raise WireError."""
    with pytest.raises(WireError, match=reason):
        Decoder(1 << 20).decode(frame)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.booleans())
def test_noise_is_a_wire_error(noise: bytes, framed: bool) -> None:
    """Arbitrary bytes decode to a message or raise WireError, and no other exception."""
    try:
        message = Decoder(1 << 20).decode(raw(noise) if framed else noise)
    except WireError:
        return
    assert message is None or isinstance(message["op"], str)


@pytest.mark.parametrize("length", [0, 3, FRAME_CAP + 1, 2**32 - 1])
def test_trap_02_a_frame_has_a_bounded_length(length: int) -> None:
    """A length above the limit is refused before any of the frame is read."""
    with pytest.raises(WireError, match="frame of"):
        Decoder.check_length(length)


def test_trap_01_small_frames_never_grow_large() -> None:
    """Decoded text is never longer than the received bytes: a frame that names the same blob twice
    is invalid.
    """
    text = b"x" * 1_000
    claims = [{"$b": 1_000} for _ in range(50_000)]
    with pytest.raises(WireError, match="blob longer"):
        Decoder(1 << 20).decode(raw({"op": "x", "v": claims}, text))


@pytest.mark.parametrize("items", [b"[],", b"{},", b'"",', b"0,"])
def test_trap_01_parts_that_never_end_are_cut_off(items: bytes) -> None:
    """Parts count with their size in memory, so that few bytes on the wire cannot take much memory
    in the host.
    """
    decoder = Decoder(1 << 20)
    packed = b'{"op":"part","part":1,"items":[' + items * 2_000 + b"0]}"
    with pytest.raises(WireError, match="parts of more"):
        for _ in range(1_000):
            decoder.decode(raw(packed))


def test_forgotten_parts_take_nothing() -> None:
    """After forget_parts, the count of parts starts at zero."""
    decoder = Decoder(100_000)
    for _ in range(100):
        decoder.decode(raw({"op": "part", "part": 1, "items": ["x" * 200] * 100}))
        decoder.forget_parts()


def test_trap_10_a_dict_with_the_wires_own_keys_crosses() -> None:
    """User data that looks like a tag arrives as data."""
    value = {"$b": 5, "$l": [1], "x": {"$d": [["$s", ["a", 0, 1]]]}}
    assert crossed({"op": "x", "value": value})["value"] == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (SpanRef("context_0", 1.0, 9), "the start of SpanRef must be int, not float"),  # type: ignore[arg-type]
        (SpanRef("context_0", 1, None), "the end of SpanRef must be int, not NoneType"),  # type: ignore[arg-type]
        (SpanRef("context_0", True, 9), "the start of SpanRef must be int, not bool"),
        (SpanRef(None, 1, 9), "the source of SpanRef must be str, not NoneType"),  # type: ignore[arg-type]
        (LLMError("a", "b", None), "the retries of LLMError must be int, not NoneType"),  # type: ignore[arg-type]
        (LLMError("a", ["b"], 0), "the message of LLMError must be str, not list"),  # type: ignore[arg-type]
        (Opaque(5, "text"), "the type of Opaque must be str, not int"),  # type: ignore[arg-type]
    ],
)
def test_a_value_with_invalid_fields_is_refused_by_the_sender(value: Any, reason: str) -> None:
    """A value that the receiver would reject is refused by the sender, with an error that names the
    field.
    """
    with pytest.raises(ValueError, match=reason):
        frames_of({"op": "x", "value": [value]})


def test_an_error_without_its_fields_is_refused_by_the_sender() -> None:
    """An `LLMError` that was created without its constructor, and has no fields, is refused."""
    with pytest.raises(ValueError, match="the type of LLMError must be str, not NoneType"):
        frames_of({"op": "x", "value": str.__new__(LLMError, "text")})


@pytest.mark.parametrize("character", ["a", "\xe9", "\u4e2d", "\U0001f600"])
@pytest.mark.parametrize("length", [100, 100_000, 3_000_000])
def test_texts_weigh_what_they_take_in_memory(character: str, length: int) -> None:
    """The weight of a string is its size in memory, where one wide character makes all characters
    wide, whether it is sent in a header, a blob or in parts.
    """
    text = "a" * length + character
    decoder = Decoder(1 << 30)
    for frame in frames_of({"op": "x", "value": text}):
        decoder.decode(body(frame))
    assert sys.getsizeof(text) < decoder.weight + 100 < 1.1 * sys.getsizeof(text) + 1_000


def test_wide_blobs_count_towards_the_bound_of_parts() -> None:
    """Strings with one wide character count with four times their size on the wire."""
    decoder = Decoder(12 << 20)
    with pytest.raises(WireError, match="parts of more"):
        for frame in frames_of({"op": "x", "value": ["a" * 50_000 + "\U0001f600"] * 100}):
            decoder.decode(body(frame))


def test_wide_texts_in_parts_count_together() -> None:
    """Strings that are each within the limit exceed it together."""
    decoder = Decoder(20 << 20)
    with pytest.raises(WireError, match="parts of more"):
        for frame in frames_of({"op": "x", "value": ["a" * 1_500_000 + "\U0001f600"] * 4}):
            decoder.decode(body(frame))


def test_a_message_whose_parts_were_forgotten_is_stale() -> None:
    """Remaining parts of a discarded message are dropped and take no memory; the message itself
    arrives and is marked as stale.
    """
    frames = frames_of({"op": "x", "value": [["y" * 5_000] * 1_500, "short"]})
    assert len(frames) > 3
    decoder = Decoder(1 << 30)
    assert decoder.decode(body(frames[0])) is None
    decoder.forget_parts()
    messages = [decoder.decode(body(frame)) for frame in frames[1:]]
    assert messages[-1] is not None
    assert (decoder.stale, decoder.held, messages[-1]["op"]) == (True, 0, "x")
    assert decoder.decode(raw({"op": "x", "value": 1})) is not None
    assert not decoder.stale


def test_weight_includes_the_parts() -> None:
    """The weight of a message includes its parts."""
    decoder = Decoder(1 << 30)
    for frame in frames_of({"op": "x", "value": ["y" * 100_000] * 100}):
        decoder.decode(body(frame))
    assert 10_000_000 < decoder.weight < 11_000_000


@pytest.mark.exhaustive
@given(st.lists(VALUES, max_size=30), st.lists(VALUES, max_size=5))
def test_a_packed_list_is_sent_any_number_of_times(one: list[Any], other: list[Any]) -> None:
    """A packed list arrives unchanged in every message, together with the message's own lists."""
    first, second = pack(one), pack(iter(other))
    for _ in range(2):
        message = crossed(
            {"op": "x", "first": first, "plain": other, "inner": {"second": second}}, None
        )
        assert message == {"op": "x", "first": one, "plain": other, "inner": {"second": other}}


def test_a_packed_list_is_sent_in_parts() -> None:
    """A long list is packed in frames of bounded size, including its long strings."""
    rows = [["p" * 100, number] for number in range(100_000)] + [["t" * 3_000_000]]
    packed = pack(rows)
    assert max(map(len, packed.frames)) < HEADER_CAP + FRAME_CAP // 4
    assert len(packed.frames) > 10
    assert crossed({"op": "x", "rows": packed}, None) == {"op": "x", "rows": rows}


def test_a_sandbox_cannot_send_a_packed_list() -> None:
    """The numbers of packed lists are reserved for the host: from a sandbox they are out of
    sequence.
    """
    with pytest.raises(WireError, match="out of sequence"):
        crossed({"op": "x", "rows": pack([1])})
