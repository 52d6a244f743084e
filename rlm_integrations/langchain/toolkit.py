"""Tools for agents over what a run found."""

from collections.abc import Callable
from typing import Any, Final, cast

from langchain_core.documents import Document
from langchain_core.tools import BaseTool, BaseToolkit, StructuredTool
from pydantic import BaseModel, Field

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.faces.evidence import search_evidence, summarize_store
from rlm_integrations.langchain.kept_stores import store_of
from rlm_integrations.langchain.outputs import evidence_document
from rlm_integrations.langchain.tool import cut, failing_softly
from rlm_integrations.store.checks import SpanText

# Characters of one span that is read, and of one finding in an artifact
MAX_READ_CHARS: Final = 20_000
_SHOWN: Final = 2_000  # characters of one finding that the model is shown
_PLACES: Final = 20  # of its places


class _Search(BaseModel):
    query: str = Field(
        description='Words to find, or terms such as type=claim tag=x desc~"words"; empty for the newest.'
    )
    k: int = Field(default=4, ge=1, le=50, description="How many findings.")


class _ReadSpan(BaseModel):
    source: str = Field(
        description='The text, such as "context_0", or the id of its document, as findings and answers name it.'
    )
    start: int = Field(ge=0, description="Its first character.")
    end: int = Field(ge=0, description="The character after its last.")


class RLMStoreToolkit(BaseToolkit):
    """Three tools: search the findings of a run, sum them up, and read the places in the document
    that they rest on.

    Args:
        store: The store: `result.store`, a result, the output of an `RLMRunnable`, or its
            `store_id`.

    Raises:
        InputError: There is no such store.
    """

    store: Any

    def __init__(self, *, store: object) -> None:
        fields: dict[str, Any] = {"store": store_of(store)}
        super().__init__(**fields)

    def get_tools(self) -> list[BaseTool]:
        """The tools; each gives plain JSON as its artifact."""
        store = store_of(self.store)

        def search(query: str, k: int = 4) -> tuple[str, Any]:
            found = [evidence_document(each) for each in search_evidence(store, query, k)]
            lines = [
                f"{each.id} ({each.metadata['type']}) {cut(each.page_content, _SHOWN)}{_places(each)}"
                for each in found
            ]
            return "\n\n".join(lines) or "nothing was found", [_plain(each) for each in found]

        def summary(query: str = "", k: int = 10) -> tuple[str, Any]:
            found = evidence_document(summarize_store(store, query, k))
            return found.page_content, _plain(found)

        def read_span(source: str, start: int, end: int) -> tuple[str, Any]:
            text = self._text(source, start, end)
            return text, {"source": source, "start": start, "end": end, "text": text}

        return [
            _tool(search, "search_findings", "Search what was found in the document.", _Search),
            _tool(
                summary,
                "summarise_findings",
                "How many findings of which types and tags there are, and the first of them.",
                _Search,
            ),
            _tool(
                read_span,
                "read_span",
                "Read the document's own words at a place that a finding names.",
                _ReadSpan,
            ),
        ]

    def _text(self, source: str, start: int, end: int) -> str:
        corpus = store_of(self.store).corpus
        if corpus is None:
            raise InputError("this store has no document: its findings are all that there is")
        if end - start > MAX_READ_CHARS:
            raise InputError(
                f"{end - start:,} characters are more than can be read at once: at most {MAX_READ_CHARS:,}"
            )
        try:
            return corpus.text(_named(corpus, source), start, end)
        except ContextError as error:
            raise InputError(
                f"the document is no longer at hand ({error}); a runnable bound to it by with_context(…) keeps it"
            ) from error


def _named(corpus: SpanText, source: str) -> str:
    """The source that is meant by its name, or by the id of the document that it is alone in
    having.
    """
    if not isinstance(corpus, Corpus):
        return source
    named = [each.name for each in corpus.sources if each.document_id == source]
    return (
        named[0]
        if len(named) == 1 and all(each.name != source for each in corpus.sources)
        else source
    )


def _tool(
    function: Callable[..., tuple[str, Any]], name: str, description: str, schema: type[BaseModel]
) -> BaseTool:
    async def off_loop(**arguments: Any) -> tuple[str, Any]:
        return cast("tuple[str, Any]", await offload(failing_softly(function), **arguments))

    return StructuredTool.from_function(
        failing_softly(function),
        off_loop,
        name=name,
        description=description,
        args_schema=schema,
        infer_schema=False,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _places(found: Document) -> str:
    return "".join(
        f" [{span['source']}:{span['start']}-{span['end']}]"
        for span in found.metadata["spans"][:_PLACES]
    )


def _plain(found: Document) -> dict[str, Any]:
    """What goes into checkpoints: a finding may be as long as a book."""
    return {
        "id": found.id,
        "page_content": cut(found.page_content, MAX_READ_CHARS),
        "metadata": found.metadata,
    }
