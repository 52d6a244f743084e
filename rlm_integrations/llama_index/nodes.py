"""Findings as LlamaIndex's nodes."""

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

_NONE: Mapping[str, Any] = {}
_OURS = UUID("3da1aee1-47a3-576b-9bbd-50d30c3c6d92")


def node_id_of(*parts: object) -> str:
    """The same id for the same parts in every run, and a UUID, because some vector stores take
    nothing else.
    """
    return str(uuid5(_OURS, json.dumps(parts, ensure_ascii=True)))


def is_slice(node: BaseNode) -> bool:
    """Whether `slice_of` made this node; its offsets are then right, which those of LlamaIndex's
    splitters need not be.
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
    fields: Mapping[str, Any] = _NONE,
) -> NodeWithScore:
    """A verified piece of a text: `SOURCE` is that text, and `start_char_idx` counts in it.

    Args:
        source: The document or node.
        start: Where the piece begins there.
        text: The piece.
        metadata: What the document says about itself.
        score: How well it fits.
        parent: The node that the piece was read in, where the source is the document that this was
            cut from.
        fields: Further fields of the node: how its metadata are shown.
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
    """An object of the store, or a summary. Its metadata are flat, so that every vector store takes
    them, and stay out of prompts.

    `spans` and `source_metadata` are JSON; `tags` and `parents` stand between commas. `SOURCE` is
    the first document that it rests on.
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
