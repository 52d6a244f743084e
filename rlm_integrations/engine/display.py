"""What of runs is displayed on stderr."""

from collections.abc import Iterable, Iterator

from rlm_integrations.engine.progress import RunLines
from rlm_integrations.engine.show import Turns
from rlm_integrations.events import Hook


def display_hooks(*, verbose: bool, progress: bool) -> Iterator[Hook]:
    """The hooks that display runs. They can display several concurrent runs."""
    if verbose:
        yield Turns()
    if progress:
        yield RunLines()


def with_turns(hooks: Iterable[Hook | None], *, verbose: bool | None) -> list[Hook | None]:
    """The hooks, with or without the one that prints turns; None leaves them as they are."""
    if verbose is None:
        return list(hooks)
    return [
        *(hook for hook in hooks if not isinstance(hook, Turns)),
        *display_hooks(verbose=verbose, progress=False),
    ]
