"""Attacks on the host with hand-written frames on the protocol's own socket."""

import dataclasses

from tests.sandbox.attacks.case import QUICK, Attack

SLEEP = "\ntime.sleep(30)"  # the host must react; this process does not end by itself


def lost(
    name: str, must_not: str, says: str, code: str, layer: str = "wire", **more: object
) -> Attack:
    """An attack that ends its own session, and affects nothing else."""
    fields = {"limits": dataclasses.replace(QUICK, message_bytes=8 << 20), **more}
    return Attack(
        name=name,
        kind="protocol",
        must_not=must_not,
        layer=layer,
        says=says,
        ends=("lost",),
        code=code + SLEEP,
        **fields,
    )  # type: ignore[arg-type]


ATTACKS = [
    lost(
        "lengths",
        "The host waits for, or allocates, a frame of four gigabytes.",
        "a frame of 4294967295 bytes",
        "write(b'\\xff' * 8)",
    ),
    lost(
        "headers",
        "A header of many megabytes holds the host while it is parsed.",
        "a header longer than its frame or the cap",
        "raw(b'{\"op\":\"out\",\"pieces\":[' + b'0,' * (2 << 20) + b'0]}')",
    ),
    lost(
        "blobs",
        "A string claims more bytes than were sent, or bytes of another string.",
        "a blob longer than its frame",
        (
            "raw({'op': 'out', 'pieces': [['stdout', {'$b': 5}], ['stdout', {'$b': 1 << 40}]]}, "
            "b'hello')"
        ),
    ),
    lost(
        "deep nesting",
        "A deeply nested value overflows the host's stack.",
        "does not parse|nests deeper",
        "raw(b'{\"op\":\"call\",\"args\":' + b'[' * 400_000 + b']' * 400_000 + b'}')",
    ),
    lost(
        "deep nesting in parts",
        (
            "Parts of parts nest deeper than a frame could, and overflow the stack of code that "
            "walks the value."
        ),
        "nests deeper",
        "raw({**CALL, 'args': nested(20_000)})",
    ),
    lost(
        "many empty lists",
        "Three bytes on the wire become many more in memory.",
        "parts of more than 8388608 bytes",
        'while True: raw(b\'{"op":"part","part":1,"items":[\' + b\'[],\' * 300_000 + b\'0]}\')',
    ),
    lost(
        "parts without an end",
        "Parts of messages that never arrive accumulate, under one number or under many.",
        "parts of more than 8388608 bytes",
        (
            "for number in range(1, 1 << 30): raw({'op': 'part', 'part': number, 'items': "
            "[{'$b': 1 << 20}]}, b'x' * (1 << 20))"
        ),
    ),
    lost(
        "call numbers",
        "Two open calls of one number are taken for one.",
        "a malformed call",
        "raw({**CALL, 'function': 'slow', 'args': [60]})\nraw(CALL)",
        layer="fields",
    ),
    lost(
        "malformed calls",
        "Invalid arguments reach a host function.",
        "a malformed call",
        "raw({**CALL, 'kwargs': [['prompt', 1]]})",
        layer="fields",
    ),
    lost(
        "tags",
        "Tags in wrong places become values, or exceptions in the host.",
        "tag",
        "raw({**CALL, 'args': [{'$l': 7, '$b': 3}, {'$s': [{'$d': 3}, None, True]}]})",
    ),
    lost(
        "keys that grow",
        (
            "Keys that are dicts double in size with each level when they are converted to "
            "strings, until the host has no memory."
        ),
        "malformed tag",
        (
            "key = b'\"\\\\\\\\\"'\nfor _ in range(28): key = b'{\"$d\":[[' + key + "
            "b',1]]}'\nraw(b'{\"op\":\"call\",\"args\":' + key + b'}')"
        ),
    ),
    lost(
        "text that decodes slowly",
        "A large text of broken characters holds the host's event loop while it is decoded.",
        "a frame of|parts of more than|unexpected message",
        "raw({'op': 'x', 'a': [{'$b': 36 << 20}]}, bytes.fromhex('eda080') * (12 << 20))",
        limits=QUICK,
        megabytes=300,
    ),
]
