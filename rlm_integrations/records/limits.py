"""The limits of a run."""

from dataclasses import dataclass, fields

from ..errors import InputError
from .encodings import undecodable


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All limits of a run except its `Budget`.

    Attributes:
        memory: Bytes of address space for the code of one REPL, in addition to the context.
        block_seconds: How long one block may compute: wall time while no call to the host is open,
            and processor time in any case.
        block_wall_seconds: How long one block may take in total, including the wait for models.
        grace_seconds: How long an interrupted block may take to end before its process is killed;
            meanwhile it is interrupted repeatedly.
        calls_per_block: How many calls to the host one block may make; a whole batch is one call.
        calls_in_flight: How many of them may be open at once; further ones wait.
        threads: How many threads one REPL may have, including two of the REPL itself. Python code
            that starts more gets a RuntimeError; code that starts them without Python is ended at
            the next count, which is made four times a second.
        stdout_kept: Characters of a block's standard output that are kept, from its start.
        stderr_kept: The same for its standard error.
        message_bytes: Bytes of memory for the arguments of one call, and for those of all open
            calls of a REPL together.
        stdout_shown: Characters of a block's output that the model is shown: the first and the
            last.
        call_seconds: How long one attempt of a call to a model may take, once it has a slot.
        reply_tokens: How many tokens a reply may have while tokens or cost are limited; they are
            reserved before each call.
        encoding: The encoding of files, as Python's codecs name it.
        decode_errors: The handler of bytes that are invalid in that encoding, as Python's codecs
            name it; "strict" refuses the file.
        single_call_below: A context of fewer characters is answered with one call, without a REPL;
            0 for never.
        compact_at: The fraction of the root model's context window at which older outputs and
            replies in its conversation are shortened.
        window: The size of the root model's context window in tokens, if the model does not say.
        child_runs: How many child runs, each with its own REPL, may be active at once at each
            depth of a tree; further ones wait.
        batch_items: How many prompts or tasks one batch may have.
        prompt_chars: Characters of one prompt of model code, after a template is filled; for a
            longer one, the call fails with an `LLMError`.
        answer_chars: Characters of an answer, as text or as JSON; a longer one is refused, and the
            model is told why.
        recorded_chars: Characters of prompts, replies and writes that the record of a tree keeps.
            Beyond three quarters of it, long prompts and replies are shortened to their first and
            last characters and their SHA-256; beyond all of it, calls are only counted.
        store_bytes: Bytes of memory for the store of a run, without the index that text searches
            build.
        query_chars: Characters that one store query may read and compare. Comparing the type or
            tags of one object counts as 10, and so does each character that the query returns.
    """

    memory: int = 2 << 30
    block_seconds: float = 60.0
    block_wall_seconds: float = 3600.0
    grace_seconds: float = 1.0
    calls_per_block: int = 2_000
    calls_in_flight: int = 64
    threads: int = 256
    stdout_kept: int = 200_000
    stderr_kept: int = 20_000
    message_bytes: int = 1 << 30
    stdout_shown: int = 10_000
    call_seconds: float = 300.0
    reply_tokens: int = 8_192
    encoding: str = "utf-8"
    decode_errors: str = "strict"
    single_call_below: int = 0
    compact_at: float = 0.7
    window: int = 128_000
    child_runs: int = 16
    batch_items: int = 100_000
    prompt_chars: int = 20_000_000
    answer_chars: int = 10_000_000
    recorded_chars: int = 100_000_000
    store_bytes: int = 1 << 29
    query_chars: int = 500_000_000

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type is str:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"Limits({each.name}={value!r}): a number is needed")
            if not value >= 0 or (value == 0 and each.default != 0):
                raise InputError(f"Limits({each.name}={value!r}): it must be greater than 0")
            if each.type is int and not isinstance(value, int):
                raise InputError(f"Limits({each.name}={value!r}): it must be an integer")
        if self.compact_at > 1:
            raise InputError(
                f"Limits(compact_at={self.compact_at!r}): it is a fraction of the model's window,"
                " at most 1"
            )
        if (why := undecodable(self.encoding, self.decode_errors)) is not None:
            raise InputError(
                f"Limits(encoding={self.encoding!r}, decode_errors={self.decode_errors!r}): {why}"
            )
