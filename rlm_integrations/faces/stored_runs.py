"""The store of a stored run, for retrievers and tools."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.faces.kept_results import store_in
from rlm_integrations.result import RLMResult
from rlm_integrations.store.reader import StoreReader


@runtime_checkable
class StoredRuns(Protocol):
    """A `storage.Storage`."""

    def run(self, run_id: str) -> RLMResult:
        """The result of a run."""
        ...

    def document(self, run_id: str) -> Corpus | None:
        """Its document, or None if it is not stored."""
        ...


def choose_store(
    store: object, storage: object, run_id: str | None, store_of: Callable[[object], StoreReader]
) -> StoreReader:
    """The store, given itself or as that of a stored run. Blocks.

    Args:
        store: The store, in a form that `store_of` takes; or None.
        storage: The storage of the run; or None.
        run_id: The id of the run; or None.
        store_of: Finds the store.

    Raises:
        InputError: Both or neither are given, or there is no store.
        StorageError: The run cannot be read.
    """
    if storage is None and run_id is None:
        return store_of(store)
    if storage is None or run_id is None or store is not None:
        raise InputError("pass store=…, or storage=… and run_id=…")
    if not isinstance(storage, StoredRuns):
        raise InputError(
            f"storage must be a Storage, as in Storage('runs/'), not {type(storage).__name__}"
        )
    found, corpus = store_in(storage.run(run_id)), storage.document(run_id)
    return found if corpus is None else found.with_document(corpus)
