"""The citations of a run as LlamaIndex nodes."""

from dataclasses import dataclass
from functools import cache

from llama_index.core.schema import NodeWithScore, RelatedNodeInfo

from rlm_integrations.faces.evidence import Evidence, citations_as_evidence
from rlm_integrations.llama_index.nodes import slice_of
from rlm_integrations.llama_index.texts import Texts
from rlm_integrations.result import RLMResult

# The metadata key of the document's id, if the document is not the node's SOURCE
DOCUMENT_ID = "document_id"
LOCATION = "location"  # the metadata key of a citation's name and line


@dataclass(frozen=True, slots=True)
class EvidenceOfRun:
    """A run's result, and its citations as nodes."""

    result: RLMResult
    nodes: list[NodeWithScore]


def found(result: RLMResult, texts: Texts) -> EvidenceOfRun:
    """A run's result with its citations as nodes. It blocks."""
    _ = result.cost  # reads a price list, and caches the cost
    whole = cache(texts.text_of)

    @cache
    def place(name: str) -> int | None:
        """The offset of a node in its document, if we split it ourselves or its text occurs there
        exactly once.
        """
        origin = texts.origin_of(name)
        if origin.at is not None or origin.document is None:
            return origin.at
        text, own = whole(origin.document.node_id) or "", texts.corpus.text(name)
        at = text.find(own)
        return at if at >= 0 and text.find(own, at + 1) < 0 else None

    return EvidenceOfRun(
        result,
        [
            _node(each, texts, place(each.source))
            for each in citations_as_evidence(result.citations, texts.corpus)
        ],
    )


def _node(evidence: Evidence, texts: Texts, place: int | None) -> NodeWithScore:
    """A citation as a node.

    Its source is the document if the offset there is certain, else the text that the run read.
    """
    (span,) = evidence.spans
    origin = texts.origin_of(evidence.source)
    metadata = origin.metadata_or(evidence.source_metadata)
    score = evidence.score if origin.score is None else origin.score
    # An id that several texts share is ambiguous: the name of the text in the run is used instead.
    own_id = (
        evidence.doc_id if texts.names.get(evidence.doc_id) == evidence.source else evidence.source
    )
    read = RelatedNodeInfo(node_id=own_id, node_type=origin.kind, metadata=metadata)
    if origin.document is not None and place is not None:
        fields = origin.look.fields()
        return slice_of(
            origin.document,
            place + span["start"],
            evidence.text,
            metadata=metadata,
            score=score,
            parent=read,
            fields=fields,
        )
    excluded: tuple[str, ...] = ()
    if evidence.location:
        metadata = {**metadata, LOCATION: evidence.location}
        excluded = (LOCATION,)
    document_id = origin.document.node_id if origin.document is not None else evidence.doc_id
    if document_id != own_id:
        metadata.setdefault(DOCUMENT_ID, document_id)
        excluded = (*excluded, DOCUMENT_ID)
    return slice_of(
        read,
        span["start"],
        evidence.text,
        metadata=metadata,
        score=score,
        fields=origin.look.fields(excluded=excluded),
    )
