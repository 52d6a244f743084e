"""Tools for agents over the findings of a run."""

from typing import Final

from llama_index.core.tools.tool_spec.base import BaseToolSpec

from rlm_integrations._concurrency import runtime
from rlm_integrations.errors import check_count
from rlm_integrations.faces.evidence import Evidence, search_evidence, summarize_store
from rlm_integrations.faces.stored_runs import choose_store
from rlm_integrations.llama_index.results import store_of
from rlm_integrations.store.passages import passage

_MAX_SHOWN_CHARS: Final = 2_000  # characters of one finding
_MAX_SPANS: Final = 20  # of one finding
_MAX_K: Final = 50  # findings of one search


class RLMStoreToolSpec(BaseToolSpec):
    """Three tools: search the findings of a run, summarize them, and read the document spans that
    support them.

        agent = FunctionAgent(tools=RLMStoreToolSpec(engine.last_store).to_tool_list(), llm=llm)

    Args:
        store: A result's `store`, an engine's `last_store`, a result, a response of an engine, or
            its `run_id` if the engine is of this process.
        storage: Instead of `store`, the storage of a run. The run is read at once, which blocks.
        run_id: The id of that run.

    Raises:
        InputError: There is no such store.
    """

    spec_functions = [  # noqa: RUF012 - LlamaIndex's contract
        ("search_findings", "asearch_findings"),
        ("summarise_findings", "asummarise_findings"),
        ("read_passage", "aread_passage"),
    ]

    def __init__(
        self, store: object = None, *, storage: object = None, run_id: str | None = None
    ) -> None:
        self._store = choose_store(store, storage, run_id, store_of)

    def search_findings(self, query: str, k: int = 4) -> str:
        """Search what was found in the document: words to find, or terms such as type=claim tag=x
        desc~"words"; empty for the newest.

        A finding ends with the places that support it, as [source:start-end], which read_passage
        reads.
        """
        found = search_evidence(self._store, query, check_count("k", k, most=_MAX_K))
        return (
            "\n\n".join(
                f"{each.id} ({each.type}) {_truncate(each.text)}{_span_labels(each)}"
                for each in found
            )
            or "nothing was found"
        )

    async def asearch_findings(self, query: str, k: int = 4) -> str:
        """See `search_findings`."""
        return await runtime.offload(self.search_findings, query, k)

    def summarise_findings(self, query: str = "", k: int = 10) -> str:
        """How many findings of which types and tags there are, and the first of them."""
        return summarize_store(self._store, query, check_count("k", k, most=_MAX_K)).text

    async def asummarise_findings(self, query: str = "", k: int = 10) -> str:
        """See `summarise_findings`."""
        return await runtime.offload(self.summarise_findings, query, k)

    def read_passage(self, source: str, start: int, end: int) -> str:
        """Read the document's own words at a place that a finding names, from character `start` up
        to `end`.
        """
        return passage(self._store, source, start, end)

    async def aread_passage(self, source: str, start: int, end: int) -> str:
        """See `read_passage`."""
        return await runtime.offload(self.read_passage, source, start, end)


def _truncate(text: str) -> str:
    return (
        text
        if len(text) <= _MAX_SHOWN_CHARS
        else f"{text[:_MAX_SHOWN_CHARS]}… ({len(text):,} characters)"
    )


def _span_labels(found: Evidence) -> str:
    return "".join(
        f" [{span['source']}:{span['start']}-{span['end']}]" for span in found.spans[:_MAX_SPANS]
    )
