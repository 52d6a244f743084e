"""The recorded prompts of a run and of its child runs, in the order of the record."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import LLMError, SpanRef
from rlm_integrations.trajectory import Iteration

# The parts of the document in the output of a turn, as the next turn was shown it
Shown = Callable[[Iteration], Iterable[SpanRef]]


@dataclass(frozen=True, slots=True)
class CallPrompt:
    """The recorded prompt of an answered call.

    Attributes:
        path: As in `Reading`.
        kind: As in `Reading`.
        number: As in `Reading`.
        prompt: The prompt.
    """

    path: str
    kind: Literal["turn", "call"]
    number: int
    prompt: PromptPieces


class PromptWalk:
    """Goes through the answered calls of a run and of its child runs.

    Args:
        shown: Finds the parts of the document in the output of a turn, for the next turn if its
            prompt is not recorded.

    Attributes:
        unrecorded: How many calls were only counted so far.
    """

    def __init__(self, shown: Shown | None = None) -> None:
        self.unrecorded = 0
        self._shown = shown
        self._turns, self._calls = count(1), count(1)

    def prompts(self, turns: Sequence[Iteration], run: str = "r") -> Iterator[CallPrompt]:
        """The prompts of the run at this path."""
        before: Iteration | None = None
        for turn in turns:
            path, number = f"{run}:t{turn.iteration}", next(self._turns)
            if turn.prompt is not None:
                yield CallPrompt(path, "turn", number, turn.prompt)
            elif self._shown is not None and before is not None:
                shown = PromptPieces(tuple(self._shown(before)), (), "")
                yield CallPrompt(path, "turn", number, shown)
            for execution in turn.executions:
                self.unrecorded += execution.unrecorded
                for call in execution.subcalls:
                    number = next(self._calls)
                    # The prompt of a child run is its question, which no model read in this form
                    if not call.turns and not isinstance(call.reply, LLMError):
                        yield CallPrompt(call.path, "call", number, call.prompt)
                    yield from self.prompts(call.turns, call.path)
            before = turn
