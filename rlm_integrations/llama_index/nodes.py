"""Findings as LlamaIndex nodes."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from llama_index.core.schema import (
    BaseNode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from rlm_integrations.faces.evidence import Evidence

_NO_FIELDS: Mapping[str, Any] = {}
_ID_NAMESPACE = UUID("3da1aee1-47a3-576b-9bbd-50d30c3c6d92")


def node_id_of(*parts: object) -> str:
    """An id that depends only on the parts. It is a UUID, because some vector stores accept nothing
    else.
    """
    return str(uuid5(_ID_NAMESPACE, json.dumps(parts, ensure_ascii=True)))


def is_slice(node: BaseNode) -> bool:
    """Whether `slice_of` created this node. Its offsets are then correct; those of LlamaIndex's
    splitters may not be.
    """
    source = node.source_node
    # The version of a UUID: random ones have a 4
    if source is None or not isinstance(node, TextNode) or node.node_id[14:15] != "5":
        return False
    return node.node_id == node_id_of(
        source.node_id, node.start_char_idx, node.end_char_idx, node.text
    )


def slice_of(
    source: RelatedNodeInfo,
    start: int,
    text: str,
    *,
    metadata: dict[str, Any],
    score: float,
    parent: RelatedNodeInfo | None = None,
    fields: Mapping[str, Any] = _NO_FIELDS,
) -> NodeWithScore:
    """A verified slice of a document or node: `SOURCE` is its id, and `start_char_idx` is an offset
    in it.

    Args:
        source: The document or node.
        start: The offset of the slice in it.
        text: The text of the slice.
        metadata: The document's metadata.
        score: The relevance.
        parent: The node that the slice was read from, if the source is the document of that node.
        fields: Further fields of the node, for the display of its metadata.
    """
    relationships = {NodeRelationship.SOURCE: source} | (
        {NodeRelationship.PARENT: parent} if parent is not None else {}
    )
    end = start + len(text)
    id_ = node_id_of(source.node_id, start, end, text)
    place = {"start_char_idx": start, "end_char_idx": end}
    node = TextNode(
        id_=id_, text=text, metadata=metadata, relationships={**relationships}, **place, **fields
    )
    return NodeWithScore(node=node, score=score)


def finding(evidence: Evidence, *, score: float = 1.0) -> NodeWithScore:
    """An object of the store, or a summary, as a node. Its metadata are flat, so that every vector
    store accepts them, and excluded from prompts.

    `spans` and `source_metadata` are JSON strings; `tags` and `parents` are separated by commas.
    `SOURCE` is the first document that supports it.
    """
    known = evidence.metadata()
    metadata = {"id": evidence.id, **known}
    metadata |= {name: ", ".join(known[name]) for name in ("tags", "parents")}
    metadata |= {
        name: json.dumps(known[name], ensure_ascii=False) for name in ("spans", "source_metadata")
    }
    node = TextNode(
        id_=node_id_of(evidence.id, evidence.text, metadata["spans"]),
        text=evidence.text,
        metadata=metadata,
        excluded_llm_metadata_keys=list(metadata),
        excluded_embed_metadata_keys=list(metadata),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=evidence.doc_id)}
        if evidence.doc_id
        else {},
    )
    return NodeWithScore(node=node, score=score)
