"""A retriever over the findings of a run."""

from typing import Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from rlm_integrations._concurrency import runtime
from rlm_integrations.errors import InputError, check_count
from rlm_integrations.faces.evidence import search_evidence, summarize_store
from rlm_integrations.faces.stored_runs import choose_store
from rlm_integrations.llama_index._defaults import callbacks
from rlm_integrations.llama_index.nodes import finding
from rlm_integrations.llama_index.results import store_of

Mode = Literal["search", "summary"]


class RLMStoreRetriever(BaseRetriever):
    """Searches the findings of a run with free text or the store's query language.

    Scores are relative: the most relevant finding has 1.0. The search's own scores are in
    `metadata["score"]`.

    Args:
        store: A result's `store`, an engine's `last_store`, a result, a response of an engine, or
            its `run_id` if the engine is of this process.
        storage: Instead of `store`, the storage of a run. The run is read at once, which blocks.
        run_id: The id of that run.
        mode: "search" returns the `k` most relevant findings, "summary" one node that summarizes
            the store.
        k: How many findings.
        callback_manager: LlamaIndex's callbacks; default: those of `Settings`.

    Raises:
        InputError: An argument is invalid.
    """

    def __init__(
        self,
        store: object = None,
        mode: Mode = "search",
        k: int = 4,
        *,
        storage: object = None,
        run_id: str | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        reading = choose_store(store, storage, run_id, store_of)
        if mode not in ("search", "summary"):
            raise InputError(f"mode={mode!r}: choose 'search' or 'summary'")
        super().__init__(callbacks(callback_manager))
        self._store = reading
        self._mode = mode
        self._k = check_count("k", k)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._found(query_bundle.query_str)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await runtime.offload(self._found, query_bundle.query_str)

    def _found(self, query: str) -> list[NodeWithScore]:
        if self._mode == "summary":
            return [finding(summarize_store(self._store, query, self._k, is_lenient=True))]
        found = search_evidence(self._store, query, self._k, is_lenient=True)
        best = max((each.score for each in found), default=1.0)
        return [finding(each, score=each.score / best) for each in found]
