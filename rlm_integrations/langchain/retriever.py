"""A retriever over what a run found."""

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
from rlm_integrations.langchain.kept_stores import store_of
from rlm_integrations.langchain.outputs import evidence_document
from rlm_integrations.store.query import MAX_RESULTS
from rlm_integrations.store.reader import StoreReader


class RLMStoreRetriever(BaseRetriever):
    """Finds in the store of a run what fits a query: in the store's query language (`type=claim
    tag=dam`), or in any other words.

    Any string is a query: what does not parse in the language is searched for as words.

    Args:
        store: The store: `result.store`, a result, the output of an `RLMRunnable`, or its
            `store_id`.
        mode: "search" gives the objects that fit best, "summary" one Document that counts types and
            tags and lists the best.
        k: How many objects.

    Raises:
        InputError: An argument cannot work.
    """

    store: Any
    mode: Literal["search", "summary"] = "search"
    k: int = 4

    def __init__(
        self,
        *,
        store: object,
        mode: Literal["search", "summary"] = "search",
        k: int = 4,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if mode not in {"search", "summary"}:
            raise InputError(f"mode={mode!r}: choose 'search' or 'summary'")
        fields: dict[str, Any] = {
            "store": store_of(store),
            "mode": mode,
            "k": check_count("k", k, most=MAX_RESULTS),
        }
        super().__init__(**fields, name=name, tags=tags, metadata=metadata)

    def search(self, query: str, k: int | None = None) -> list[Document]:
        """The objects that fit best, their places in the document in `metadata["spans"]`."""
        return [
            evidence_document(each)
            for each in search_evidence(
                self._reading,
                query,
                check_count("k", self.k if k is None else k, most=MAX_RESULTS),
                is_lenient=True,
            )
        ]

    def summary(self, query: str = "", k: int | None = None) -> Document:
        """What there is in the store on a query."""
        return evidence_document(
            summarize_store(
                self._reading,
                query,
                check_count("k", self.k if k is None else k, most=MAX_RESULTS),
                is_lenient=True,
            )
        )

    @property
    def _reading(self) -> StoreReader:
        store: StoreReader = self.store
        return store

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._found(query, k)

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return await offload(self._found, query, k)

    def _found(self, query: str, k: int | None) -> list[Document]:
        return self.search(query, k) if self.mode == "search" else [self.summary(query, k)]
