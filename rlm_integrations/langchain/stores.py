"""The stores of the latest runs, by id: what a checkpoint or an artifact holds is the id alone."""

from collections import deque
from collections.abc import Mapping
from typing import Final
from weakref import WeakValueDictionary

from rlm_integrations._runtime import shared
from rlm_integrations.errors import InputError
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore
from rlm_integrations.store.shared import Reading

KEPT: Final = 32  # stores


class _Kept:
    def __init__(self) -> None:
        self.stores: WeakValueDictionary[str, SharedStore] = WeakValueDictionary()
        self.latest: deque[SharedStore] = deque(maxlen=KEPT)


def keep(result: RLMResult, holder: deque[SharedStore] | None = None) -> None:
    """Keep the store of a run for whoever asks for it by the run's id, until 32 further runs have come.

    Args:
        result: The run's.
        holder: Who keeps it; by default this process. A store holds its document, so it is kept by who has that, if anybody has.
    """
    if result.store is not None:
        kept = shared("stores of runnables", _Kept)
        kept.stores[result.run_id] = result.store
        (kept.latest if holder is None else holder).append(result.store)


def store_of(given: object) -> Reading:
    """The store that is meant by itself, by a result, by a runnable's output, or by its id.

    Raises:
        InputError: It is none of these, or no longer kept.
    """
    if isinstance(given, Reading):
        return given
    if isinstance(given, RLMResult):
        if given.store is None:
            raise InputError('this result has no store: its run had store_mode="none", or it was read from a file')
        return given.store
    if isinstance(given, Mapping) and isinstance(about := given.get("rlm"), Mapping):
        given = about.get("store_id")
        if given is None:
            raise InputError('this output has no store: its run had store_mode="none"')
    if not isinstance(given, str):
        raise InputError(f"a store is result.store, a result, an output of RLMRunnable, or a store_id, not {type(given).__name__}")
    found = shared("stores of runnables", _Kept).stores.get(given)
    if found is None:
        raise InputError(
            f"there is no store {given[:60]!r} in this process: those of the last {KEPT} runs are kept, and those over a bound document "
            "for as long as it is bound"
        )
    return found
