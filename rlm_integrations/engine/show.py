"""What a run shows on stderr while it goes on. It only reads events."""

import sys
from collections.abc import Iterator

from rlm_integrations.events import BlockFinished, BlockStarted, Event, Hook, TurnStarted


def shown_by(*, verbose: bool, progress: bool) -> Iterator[Hook]:
    """The hooks that show a run."""
    if verbose:
        yield print_turns
    if progress:
        yield print_turns


def print_turns(event: Event) -> None:
    """Print each turn with its code, output and time."""
    match event:
        case TurnStarted(iteration=number):
            print(f"[turn {number}]", file=sys.stderr)  # noqa: T201 - what `verbose` is for
        case BlockStarted(code=code):
            print(code, file=sys.stderr)  # noqa: T201 - see above
        case BlockFinished(execution=execution):
            print(f"{execution.output}({execution.status}, {execution.elapsed:.2f} s)", file=sys.stderr)  # noqa: T201 - see above
