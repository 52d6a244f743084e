"""The nodes of an index, in the order in which they came into its document store."""

from collections.abc import Iterable
from typing import Any

from llama_index.core.data_structs.data_structs import IndexDict, IndexGraph, IndexList, KeywordTable
from llama_index.core.data_structs.document_summary import IndexDocumentSummary
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, Document

from rlm_integrations.errors import InputError


def node_ids(index: BaseIndex[Any]) -> tuple[str, ...]:
    """The ids of its nodes that hold text of documents, not summaries that a model wrote.

    Raises:
        InputError: Its kind does not say which these are.
    """
    struct = index.index_struct
    found: Iterable[str]
    if isinstance(struct, IndexDict):
        found = struct.nodes_dict.values()
    elif isinstance(struct, IndexList):
        found = struct.nodes
    elif isinstance(struct, IndexDocumentSummary):
        found = (each for ids in struct.summary_id_to_node_ids.values() for each in ids)
    elif isinstance(struct, KeywordTable):
        found = sorted(struct.node_ids)
    elif isinstance(struct, IndexGraph):  # a tree, whose leaves are the text
        found = (each for each in struct.all_nodes.values() if not struct.node_id_to_children_ids.get(each))
    else:
        raise InputError(f"which texts belong to this {type(index).__name__} is not known: pass documents=…, nodes=… or retriever=…")
    return tuple(dict.fromkeys(found))


def nodes_of(index: BaseIndex[Any]) -> list[BaseNode]:
    """The nodes; it blocks.

    Raises:
        InputError: They are not in its document store.
    """
    wanted = set(node_ids(index))
    nodes = [node for id_, node in index.docstore.docs.items() if id_ in wanted]
    if not nodes:
        raise InputError(
            "the index has no texts in its document store (a vector store of its own may hold them, or it is empty): "
            "pass retriever=index.as_retriever(similarity_top_k=…), or documents=… or nodes=…"
        )
    return nodes


def document_of(index: BaseIndex[Any], document_id: str) -> str | None:
    """The text of a whole document, where the index's document store has that too; it blocks."""
    found = index.docstore.get_document(document_id, raise_error=False)
    return found.get_content() if isinstance(found, Document) else None
