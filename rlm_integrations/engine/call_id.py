"""The identities of the calls and blocks that a journal records."""

from dataclasses import dataclass
from typing import Final

# The letter in a path of each function that calls models; other functions have their full names
_LETTERS: Final = {
    "llm_query": "q",
    "llm_batch": "b",
    "parallel_query": "p",
    "recursive_lm": "c",
    "recursive_batch": "d",
    "rlm_query": "k",
    "rlm_query_batched": "l",
    "rlm_worker": "w",
    "rlm_worker_batched": "v",
    "store.llm_map": "m",
    "store.llm_reduce": "f",
}
_DIGEST_CHARS: Final = 10  # of a digest, in a path

_FUNCTIONS: Final = {letter: name for name, letter in _LETTERS.items()}

TURN: Final = "turn"
CLOSE: Final = "close"  # the root model's last call, after a limit was reached
SINGLE: Final = "single"  # the one call that answers a question over a short document
BLOCK: Final = "block"


@dataclass(frozen=True, slots=True)
class CallId:
    """The identity of a call of model code, a root call or a block. It is the same in every replay,
    independent of the order of threads.

    Attributes:
        run: The path of the calling run.
        block: The number of the calling block; 0 for the run's own calls.
        function: The name of the host function, or one of the constants above.
        digest: SHA-256 of the arguments, or of a block's code; "" for root calls.
        occurrence: The number of earlier calls with the same block, function and arguments; for a
            turn, its number.
        items: The position of one prompt or task in the call, such as (17,); for a root call that
            is repeated with a shorter conversation, the number of the attempt.
    """

    run: str
    block: int
    function: str
    digest: str = ""
    occurrence: int = 0
    items: tuple[int, ...] = ()

    def item(self, *position: int) -> "CallId":
        """The identity of one prompt or task of the call."""
        # Not `replace`, which takes five times as long
        return CallId(
            *(self.run, self.block, self.function, self.digest, self.occurrence),
            items=(*self.items, *position),
        )

    @property
    def path(self) -> str:
        """The identity as a short string: `r:t2` is turn 2 of the run `r`, `r.b3/b1f0c9a3e57.17` is
        prompt 17 of an `llm_batch` in its block 3.
        """
        items = "".join(f".{position}" for position in self.items)
        match self.function:
            case "turn":
                return f"{self.run}:t{self.occurrence}{items}"
            case "close" | "single":
                return f"{self.run}:{self.function}{items}"
            case "block":
                return f"{self.run}:b{self.block}"
        name = _LETTERS.get(self.function, f"{self.function}-")
        again = f"~{self.occurrence + 1}" if self.occurrence else ""
        return f"{self.run}.b{self.block}/{name}{self.digest[:_DIGEST_CHARS]}{again}{items}"


def function_in(path: str) -> str:
    """The function that the path of a call names; "" for a call of the root model."""
    last = path.rpartition("/")[2] if "/" in path else ""
    name, dash, _ = last.partition("-")
    return name if dash else _FUNCTIONS.get(last[:1], "")
