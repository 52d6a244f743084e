"""The results of the latest runs, by run id: checkpoints and responses hold only the id."""

import threading
from collections import OrderedDict
from typing import Final

from rlm_integrations.errors import InputError
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore

MAX_KEPT_RESULTS: Final = 32


class KeptResults:
    """The latest `MAX_KEPT_RESULTS` results; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: OrderedDict[str, RLMResult] = OrderedDict()

    @property
    def last(self) -> RLMResult | None:
        """The result of the latest run."""
        with self._lock:
            return next(reversed(self._results.values()), None)

    def keep(self, result: RLMResult) -> None:
        """Keep a result, and with it its store, until `MAX_KEPT_RESULTS` newer ones are kept."""
        with self._lock:
            self._results[result.run_id] = result
            if len(self._results) > MAX_KEPT_RESULTS:
                self._results.popitem(last=False)

    def find(self, run_id: str) -> RLMResult | None:
        """The result of this run, or None if it is not kept here."""
        with self._lock:
            return self._results.get(run_id)


def store_in(result: RLMResult) -> SharedStore:
    """The store of a result.

    Raises:
        InputError: It has none.
    """
    if result.store is None:
        raise InputError(
            'this result has no store: its run had store_mode="none", or it was read from a file'
        )
    return result.store
