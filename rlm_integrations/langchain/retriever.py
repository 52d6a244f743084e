"""A retriever over the findings of a run."""

from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from typing_extensions import override

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import InputError, check_count
from rlm_integrations.faces.evidence import search_evidence, summarize_store
from rlm_integrations.faces.stored_runs import choose_store
from rlm_integrations.langchain.kept_stores import store_of
from rlm_integrations.langchain.outputs import evidence_document
from rlm_integrations.store.query import MAX_RESULTS
from rlm_integrations.store.reader import StoreReader


class RLMStoreRetriever(BaseRetriever):
    """Searches the store of a run with the store's query language (`type=claim tag=dam`) or free
    text.

    Any string is a valid query: one that does not parse in the language is treated as free text.

    Args:
        store: The store: `result.store`, a result, the output of an `RLMRunnable`, or its
            `store_id`.
        storage: Instead of `store`, the storage of a run. The run is read at once, which blocks.
        run_id: The id of that run.
        mode: "search" returns the most relevant objects, "summary" one Document with counts by type
            and tag and the most relevant objects.
        k: How many objects.

    Raises:
        InputError: An argument is invalid.
    """

    store: Any
    mode: Literal["search", "summary"] = "search"
    k: int = 4

    def __init__(
        self,
        *,
        store: object = None,
        storage: object = None,
        run_id: str | None = None,
        mode: Literal["search", "summary"] = "search",
        k: int = 4,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if mode not in {"search", "summary"}:
            raise InputError(f"mode={mode!r}: choose 'search' or 'summary'")
        fields: dict[str, Any] = {
            "store": choose_store(store, storage, run_id, store_of),
            "mode": mode,
            "k": check_count("k", k, most=MAX_RESULTS),
        }
        super().__init__(**fields, name=name, tags=tags, metadata=metadata)

    def search(self, query: str, k: int | None = None) -> list[Document]:
        """The most relevant objects, with their spans in the document in `metadata["spans"]`."""
        return [
            evidence_document(each)
            for each in search_evidence(
                self._store,
                query,
                check_count("k", self.k if k is None else k, most=MAX_RESULTS),
                is_lenient=True,
            )
        ]

    def summary(self, query: str = "", k: int | None = None) -> Document:
        """A summary of the store for a query."""
        return evidence_document(
            summarize_store(
                self._store,
                query,
                check_count("k", self.k if k is None else k, most=MAX_RESULTS),
                is_lenient=True,
            )
        )

    @property
    def _store(self) -> StoreReader:
        store: StoreReader = self.store
        return store

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._retrieve(query, k)

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return await offload(self._retrieve, query, k)

    def _retrieve(self, query: str, k: int | None) -> list[Document]:
        return self.search(query, k) if self.mode == "search" else [self.summary(query, k)]
