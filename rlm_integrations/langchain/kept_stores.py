"""The results of the latest runs, by id: what a checkpoint or an artifact holds is the id alone."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from rlm_integrations._concurrency.runtime import shared
from rlm_integrations.errors import InputError
from rlm_integrations.result import RLMResult
from rlm_integrations.store.reader import StoreReader

KEPT_STORES: Final = 32  # results


class _Kept:
    def __init__(self) -> None:
        self._results: OrderedDict[str, RLMResult] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, result: RLMResult) -> None:
        with self._lock:
            self._results[result.run_id] = result
            while len(self._results) > KEPT_STORES:
                self._results.popitem(last=False)

    def get(self, run_id: str) -> RLMResult | None:
        with self._lock:
            return self._results.get(run_id)


def keep(result: RLMResult) -> None:
    """Keep a run's result, and with it its store, until 32 further runs of this process have ended."""
    shared("results of runnables", _Kept).add(result)


def result_of(run: object) -> RLMResult:
    """The whole result of one of the last 32 runs of this process: its trajectory, citations, store
    and the rest.

    Args:
        run: The output of an `RLMRunnable`, what its "rlm" holds, an artifact of its tool, or the
            `run_id`.

    Raises:
        InputError: It names no run, or one that is no longer kept.
    """
    if isinstance(run, RLMResult):
        return run
    about = run.get("rlm", run) if isinstance(run, Mapping) else None
    run_id = about.get("run_id") if isinstance(about, Mapping) else run
    if not isinstance(run_id, str):
        raise InputError(
            f"a run is an output of RLMRunnable or its run_id, not {type(run).__name__}"
        )
    found = shared("results of runnables", _Kept).get(run_id)
    if found is None:
        raise InputError(
            f"there is no run {run_id[:60]!r} in this process: the results of its last {KEPT_STORES} runs are kept"
        )
    return found


def store_of(given: object) -> StoreReader:
    """The store that is meant by itself, by a result, by a runnable's output, or by its id.

    Raises:
        InputError: It is none of these, or no longer kept.
    """
    if isinstance(given, StoreReader):
        return given
    if isinstance(given, Mapping) and isinstance(about := given.get("rlm"), Mapping):
        given = about.get("store_id")
        if given is None:
            raise InputError('this output has no store: its run had store_mode="none"')
    if not isinstance(given, str | RLMResult):
        raise InputError(
            f"a store is result.store, a result, an output of RLMRunnable, or a store_id, not {type(given).__name__}"
        )
    found = result_of(given)
    if found.store is None:
        raise InputError(
            'this result has no store: its run had store_mode="none", or it was read from a file'
        )
    return found.store
