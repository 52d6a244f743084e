"""The results and stores of this process's latest runs, by id: checkpoints hold only the id."""

from collections.abc import Mapping

from rlm_integrations._concurrency.runtime import shared
from rlm_integrations.errors import InputError
from rlm_integrations.faces.kept_results import MAX_KEPT_RESULTS, KeptResults, store_in
from rlm_integrations.result import RLMResult
from rlm_integrations.store.reader import StoreReader


def keep(result: RLMResult) -> None:
    """Keep a run's result, and with it its store, until 32 newer runs of this process have
    ended.
    """
    _kept().keep(result)


def result_of(run: object) -> RLMResult:
    """The result of one of this process's last 32 runs, with its trajectory, citations and store.

    Args:
        run: The output of an `RLMRunnable`, the output's "rlm" value, an artifact of its tool, or
            the `run_id`.

    Raises:
        InputError: `run` identifies no run, or its result is no longer kept.
    """
    if isinstance(run, RLMResult):
        return run
    about = run.get("rlm", run) if isinstance(run, Mapping) else None
    run_id = about.get("run_id") if isinstance(about, Mapping) else run
    if not isinstance(run_id, str):
        raise InputError(
            f"run must be an output of RLMRunnable or its run_id, not {type(run).__name__}"
        )
    found = _kept().find(run_id)
    if found is None:
        raise InputError(
            f"there is no run {run_id[:60]!r} in this process: the results of its last "
            f"{MAX_KEPT_RESULTS} runs are kept"
        )
    return found


def store_of(given: object) -> StoreReader:
    """The store, given as a store, a result, a runnable's output, or its id.

    Raises:
        InputError: It is not one of these, has no store, or is no longer kept.
    """
    if isinstance(given, StoreReader):
        return given
    if isinstance(given, Mapping) and isinstance(about := given.get("rlm"), Mapping):
        given = about.get("store_id")
        if given is None:
            raise InputError('this output has no store: its run had store_mode="none"')
    if not isinstance(given, str | RLMResult):
        raise InputError(
            "store must be result.store, a result, an output of RLMRunnable, or a store_id, "
            f"not {type(given).__name__}"
        )
    return store_in(result_of(given))


def _kept() -> KeptResults:
    return shared("results of runnables", KeptResults)
