"""Tools for agents over the findings of a run."""

from collections.abc import Callable
from typing import Any, Final, cast

from langchain_core.documents import Document
from langchain_core.tools import BaseTool, BaseToolkit, StructuredTool
from pydantic import BaseModel, Field

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.faces.evidence import search_evidence, summarize_store
from rlm_integrations.faces.stored_runs import choose_store
from rlm_integrations.langchain.kept_stores import store_of
from rlm_integrations.langchain.outputs import evidence_document
from rlm_integrations.langchain.tool import truncate, with_tool_exceptions
from rlm_integrations.store.passages import passage

_MAX_SHOWN_CHARS: Final = 2_000  # of one finding, for the model
_MAX_ARTIFACT_CHARS: Final = 20_000  # of one finding in an artifact, which goes into checkpoints
_MAX_SPANS: Final = 20  # of one finding, for the model


class _Search(BaseModel):
    query: str = Field(
        description=(
            'Words to find, or terms such as type=claim tag=x desc~"words"; empty for the newest.'
        )
    )
    k: int = Field(default=4, ge=1, le=50, description="How many findings.")


class _ReadSpan(BaseModel):
    source: str = Field(
        description=(
            'The source, such as "context_0", or its document id, as findings and answers name it.'
        )
    )
    start: int = Field(ge=0, description="Offset of the first character.")
    end: int = Field(ge=0, description="Offset after the last character.")


class RLMStoreToolkit(BaseToolkit):
    """Three tools: search the findings of a run, summarize them, and read the document spans that
    support them.

    Args:
        store: The store: `result.store`, a result, the output of an `RLMRunnable`, or its
            `store_id`.
        storage: Instead of `store`, the storage of a run. The run is read at once, which blocks.
        run_id: The id of that run.

    Raises:
        InputError: The store is not found.
    """

    store: Any

    def __init__(
        self, *, store: object = None, storage: object = None, run_id: str | None = None
    ) -> None:
        fields: dict[str, Any] = {"store": choose_store(store, storage, run_id, store_of)}
        super().__init__(**fields)

    def get_tools(self) -> list[BaseTool]:
        """The tools; each returns plain JSON as its artifact."""
        store = store_of(self.store)

        def search(query: str, k: int = 4) -> tuple[str, Any]:
            found = [evidence_document(each) for each in search_evidence(store, query, k)]
            lines = [
                (
                    f"{each.id} ({each.metadata['type']}) "
                    f"{truncate(each.page_content, _MAX_SHOWN_CHARS)}{_span_labels(each)}"
                )
                for each in found
            ]
            return "\n\n".join(lines) or "nothing was found", [_artifact(each) for each in found]

        def summary(query: str = "", k: int = 10) -> tuple[str, Any]:
            found = evidence_document(summarize_store(store, query, k))
            return found.page_content, _artifact(found)

        def read_span(source: str, start: int, end: int) -> tuple[str, Any]:
            text = passage(store, source, start, end)
            return text, {"source": source, "start": start, "end": end, "text": text}

        return [
            _tool(search, "search_findings", "Search the findings from the document.", _Search),
            _tool(
                summary,
                "summarise_findings",
                "Counts of findings by type and tag, and the first findings.",
                _Search,
            ),
            _tool(
                read_span,
                "read_span",
                "Read the document's text at a span that a finding names.",
                _ReadSpan,
            ),
        ]


def _tool(
    function: Callable[..., tuple[str, Any]], name: str, description: str, schema: type[BaseModel]
) -> BaseTool:
    async def off_loop(**arguments: Any) -> tuple[str, Any]:
        return cast("tuple[str, Any]", await offload(with_tool_exceptions(function), **arguments))

    return StructuredTool.from_function(
        with_tool_exceptions(function),
        off_loop,
        name=name,
        description=description,
        args_schema=schema,
        infer_schema=False,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _span_labels(found: Document) -> str:
    return "".join(
        f" [{span['source']}:{span['start']}-{span['end']}]"
        for span in found.metadata["spans"][:_MAX_SPANS]
    )


def _artifact(found: Document) -> dict[str, Any]:
    """A finding in plain JSON, truncated for checkpoints: it can be as long as a book."""
    return {
        "id": found.id,
        "page_content": truncate(found.page_content, _MAX_ARTIFACT_CHARS),
        "metadata": found.metadata,
    }
