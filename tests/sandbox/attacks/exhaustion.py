"""Attacks that exhaust memory, time, descriptors or the host's resources."""

import dataclasses

from tests.sandbox.attacks.case import QUICK, SHORT, Attack

ATTACKS = [
    Attack(
        name="one large allocation",
        kind="exhaustion",
        must_not="A session allocates more memory than its limit.",
        layer="rlimits",
        says="MemoryError|Cannot allocate",
        code="""
            import mmap
            for take in (lambda: "x" * (2 << 30), lambda: bytearray(1 << 33), lambda: [0] * (1 << 29)):
                try:
                    breach(len(take()))
                except MemoryError:
                    pass
            mmap.mmap(-1, 2 << 30)
            breach("mapped")
        """,
    ),
    Attack(
        name="many small allocations",
        kind="exhaustion",
        must_not="A session allocates more memory than its limit, in small pieces.",
        layer="rlimits",
        limits=dataclasses.replace(SHORT, memory=128 << 20, block_seconds=5),
        says="MemoryError",
        code="""
            def hoard():
                hoarded = []
                while True:
                    hoarded.append(bytearray(1 << 20))
            hoard()
        """,
    ),
    Attack(
        name="threads",
        kind="exhaustion",
        must_not="A session fills the machine's table of threads.",
        layer="watch",
        limits=dataclasses.replace(SHORT, threads=64, block_seconds=5),
        ends=("lost",),
        says="more than 64 threads",
        code="""
            while True:
                more_threads(100)
                time.sleep(0.01)
        """,
    ),
    Attack(
        name="descriptors",
        kind="exhaustion",
        must_not=(
            "A session opens more descriptors than its limit, each of which uses kernel memory."
        ),
        layer="rlimits",
        says="Too many open files",
        works=True,
        code="""
            pipes = []
            while len(pipes) < 100:
                one, two = os.pipe()
                os.set_blocking(two, False)
                os.write(two, b"x" * 65536)
                pipes.append((one, two))
            breach(len(pipes))
        """,
    ),
    Attack(
        name="tables of descriptors",
        kind="exhaustion",
        must_not=(
            "Each thread gets its own descriptor table, so that together they open more than the "
            "session's limit."
        ),
        layer="seccomp",
        works=True,
        code=(
            "reach(*[('close_range', 1 << 20, 1 << 20, flags) for flags in (2, 6, 1, 8, "
            "0xFFFFFFFF)])"
        ),
    ),
    Attack(
        name="a flood of output",
        kind="exhaustion",
        must_not="The host keeps more output than its limit.",
        layer="fields",
        limits=dataclasses.replace(SHORT, stdout_kept=1000, stderr_kept=1000),
        ends=("interrupted",),
        says="computed for more than 0.5 s",
        code="while True: print('x' * 100_000); print('y' * 100_000, file=sys.stderr)",
        check=lambda result, _: check_flood(result.stdout, result.stderr, result.dropped),
    ),
    Attack(
        name="a huge argument",
        kind="exhaustion",
        must_not=(
            "One call makes the host hold more than a call's limit; one wide character makes a "
            "string four times as large as its bytes."
        ),
        layer="wire",
        limits=dataclasses.replace(QUICK, message_bytes=8 << 20),
        ends=("lost",),
        says="parts of more than 8388608 bytes",
        code="llm_query('x' * (6 << 20) + chr(0x1F600))",
    ),
    Attack(
        name="a huge reply",
        kind="exhaustion",
        must_not=(
            "A reply that does not fit into the session leaves it waiting for ever, or stays "
            "with the host."
        ),
        layer="rlimits",
        limits=dataclasses.replace(QUICK, memory=64 << 20),
        ends=("lost",),
        says="ended by itself",
        megabytes=260,  # the reply itself, and once more in frames
        code="give(64 << 20)\ntime.sleep(30)",
    ),
    Attack(
        name="endless recursion",
        kind="exhaustion",
        must_not="A stack overflow affects more than this session.",
        layer="own process",
        ends=("error", "lost"),
        says="RecursionError|MemoryError|ended by itself",
        keeps=False,
        code=(
            "sys.setrecursionlimit(1 << 30)\ndef down(): return [*map(lambda _: down(), "
            "[0])]\ndown()"
        ),
    ),
    Attack(
        name="a regex that never ends",
        kind="exhaustion",
        must_not="An endless search blocks the host or the session.",
        layer="watch",
        limits=SHORT,
        ends=("interrupted",),
        says="computed for more than 0.5 s",
        code="import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    ),
    Attack(
        name="an open call",
        kind="exhaustion",
        must_not="A call that stays open stops the clock while another thread computes.",
        layer="watch",
        limits=SHORT,
        ends=("interrupted",),
        says="computed for more than 0.5 s",
        code=(
            "import threading\nthreading.Thread(target=slow, args=(60,), "
            "daemon=True).start()\nwhile True: pass"
        ),
    ),
    Attack(
        name="replies that nobody reads",
        kind="exhaustion",
        must_not=(
            "The host piles up replies for code that holds its interpreter in one endless call "
            "and cannot be interrupted."
        ),
        layer="watch",
        limits=dataclasses.replace(SHORT, calls_in_flight=8),
        ends=("lost",),
        says="did not end within 0.2 s",
        code="""
            for number in range(100):
                raw({**CALL, "call": number, "function": "give", "args": [1 << 20]})
            sum(range(1 << 62))
        """,
    ),
    Attack(
        name="half a frame",
        kind="exhaustion",
        must_not="The host waits for ever for the rest of a message.",
        layer="watch",
        limits=SHORT,
        ends=("interrupted", "lost"),
        says="computed for more than 0.5 s|broke the protocol",
        keeps=False,
        code="write(struct.pack('>I', 60 << 20) + b'x' * 1000)\ntime.sleep(30)",
    ),
]


def check_flood(stdout: str, stderr: str, dropped: int) -> None:
    assert (len(stdout), len(stderr)) == (1000, 1000)
    assert dropped > 100_000
