"""Attacks that send false messages to the host. A forged FINAL is not an escape: the host trusts no
claim of code. What the host measures itself cannot be forged.
"""

import dataclasses
import time
from pathlib import Path

from rlm_integrations.sandbox.base import ExecutionResult
from tests.sandbox.arena import Arena
from tests.sandbox.attacks.case import SHORT, Attack
from tests.sandbox.attacks.protocol import SLEEP


def check_measures(result: ExecutionResult, _: Arena) -> None:
    """The host measures these values itself."""
    assert result.elapsed > 0.1
    assert result.host_calls == 0
    assert result.final is not None
    assert result.final.value == "forged"  # a claim like any other


def check_resting(_: ExecutionResult, arena: Arena) -> None:
    """A process that reports the end of its block is stopped."""
    stat = Path(f"/proc/{arena.attacker.child._pid}/stat")
    deadline = time.monotonic() + 60
    while stat.read_text().rpartition(") ")[2][0] != "T":
        assert time.monotonic() < deadline


def check_not_asked(result: ExecutionResult, arena: Arena) -> None:
    assert (result.host_calls, arena.gate.calls) == (0, [])


def check_printable(result: ExecutionResult, _: Arena) -> None:
    assert result.error is not None
    for text in (
        result.error.type,
        result.error.message,
        result.error.traceback,
        *result.locals,
        *result.locals.values(),
        result.stdout,
    ):
        assert len(text.encode()) <= 100_000


def lost(name: str, must_not: str, says: str, code: str) -> Attack:
    """A forgery that ends its own session, and affects nothing else."""
    return Attack(
        name=name,
        kind="forgery",
        must_not=must_not,
        layer="fields",
        says=says,
        ends=("lost",),
        code=code + SLEEP,
    )


ATTACKS = [
    Attack(
        name="final and measures",
        kind="forgery",
        must_not="A forged end changes the host's own measurements: time, calls, status.",
        layer="fields",
        ends=("ok",),
        says="",
        keeps=False,
        check=check_measures,
        code="""
            time.sleep(0.2)
            final = {"value": "forged", "evidence": []}
            raw({**DONE, "final": final, "elapsed": 1e9, "host_calls": 999, "status": "lost", "interrupted": True})
            time.sleep(30)
        """,
    ),
    Attack(
        name="an end that is none",
        kind="forgery",
        must_not="Code that says that it is done goes on computing while nobody looks.",
        layer="watch",
        ends=("ok",),
        says="",
        keeps=False,
        check=check_resting,
        code="raw(DONE)\nwhile True: pass",
    ),
    lost(
        "a negative count",
        "A count is negative.",
        "a malformed end",
        "raw({**DONE, 'dropped': -1})",
    ),
    lost(
        "a count beyond numbers",
        "A count has thousands of digits.",
        "a malformed end",
        "raw({**DONE, 'dropped': 10 ** 4000})",
    ),
    lost(
        "variables without end",
        "The list of variables is longer than the host's limit.",
        "a malformed end",
        "raw({**DONE, 'locals': {str(each): 'int' for each in range(50_000)}})",
    ),
    lost(
        "variables that are no texts",
        (
            "The description of a variable is a value that breaks the host when it is converted "
            "to a string."
        ),
        "a malformed end|nests deeper",
        "raw({**DONE, 'locals': {'x': nested(20_000)}})",
    ),
    lost(
        "output beyond its bound",
        "The host keeps more output than its limit.",
        "output that is malformed or beyond its bound",
        (
            "for _ in range(1000): raw({'op': 'out', 'pieces': [['stdout', {'$b': 1000}]]}, b'x' "
            "* 1000)"
        ),
    ),
    lost(
        "output that is empty",
        "Empty pieces, which never reach a limit, fill the host's memory.",
        "output that is malformed or beyond its bound",
        (
            'while True: raw(b\'{"op":"out","pieces":[\' + b\'["stdout",""],\' * 60_000 + '
            'b\'["stdout",""]]}\')'
        ),
    ),
    lost(
        "an answer of the host's",
        "A message that only the host may send is accepted from the session.",
        "an unexpected message 'answer'",
        "raw({'op': 'answer', 'call': 1, 'value': 'forged'})",
    ),
    Attack(
        name="a call of another block",
        kind="forgery",
        must_not="A call that names another block is charged, counted or answered as that block's.",
        layer="fields",
        ends=("ok",),
        says="told so",
        check=check_not_asked,
        code=(
            "for block in (0, 2, -1, 10 ** 30): raw({**CALL, 'block': block, 'call': "
            "7})\ntime.sleep(0.1)\nprint('told so')"
        ),
    ),
    Attack(
        name="a name like a line of /proc",
        kind="forgery",
        must_not="The process's name, which it may set, hides its number of threads from the host.",
        layer="watch",
        limits=dataclasses.replace(SHORT, threads=64, block_seconds=5),
        ends=("lost",),
        says="more than 64 threads",
        code="""
            for name in (b") S 1 1 1 1 1 1", b") R (x) S 1 1"):
                syscall("prctl", 15, name, 0, 0, 0)
                more_threads(50)
            time.sleep(30)
        """,
    ),
    Attack(
        name="an error without end",
        kind="forgery",
        must_not=(
            "An error message of code is kept at any length, or breaks the code that records it."
        ),
        layer="fields",
        ends=("error",),
        says="",
        keeps=False,
        check=check_printable,
        code="""
            text = {"$b": 300_000}
            error = {"type": text, "message": text, "traceback": text}
            blob = bytes.fromhex("eda080") * 100_000
            raw({**DONE, "error": error, "locals": {chr(0xDC80): chr(0xD800)}}, blob, blob, blob)
            time.sleep(30)
        """,
    ),
]
