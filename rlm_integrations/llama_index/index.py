"""The nodes of an index that hold text of its documents, not summaries that a model wrote."""

from collections.abc import Iterable, Iterator
from typing import Any

from llama_index.core.data_structs.data_structs import IndexDict, IndexGraph, IndexList, KeywordTable
from llama_index.core.data_structs.document_summary import IndexDocumentSummary
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode

from rlm_integrations.errors import InputError


class Nodes:
    """These nodes, in the order in which they came into the document store; to iterate blocks.

    Attributes:
        ids: Their ids.

    Raises:
        InputError: The index does not say which they are, or its document store does not have them.
    """

    def __init__(self, index: BaseIndex[Any]) -> None:
        self.ids = tuple(dict.fromkeys(_ids(index)))
        self._index = index

    def __iter__(self) -> Iterator[BaseNode]:
        wanted = set(self.ids)
        nodes = [node for id_, node in self._index.docstore.docs.items() if id_ in wanted]
        if not nodes:
            raise InputError(
                "the index has no texts in its document store (a vector store of its own may hold them, or it is empty): "
                "pass retriever=index.as_retriever(similarity_top_k=…), or documents=… or nodes=…"
            )
        return iter(nodes)


def _ids(index: BaseIndex[Any]) -> Iterable[str]:
    struct = index.index_struct
    if isinstance(struct, IndexDict):
        return struct.nodes_dict.values()
    if isinstance(struct, IndexList):
        return struct.nodes
    if isinstance(struct, IndexDocumentSummary):
        return (each for ids in struct.summary_id_to_node_ids.values() for each in ids)
    if isinstance(struct, KeywordTable):
        return sorted(struct.node_ids)
    if isinstance(struct, IndexGraph):  # a tree, whose leaves are the text
        return (each for each in struct.all_nodes.values() if not struct.node_id_to_children_ids.get(each))
    raise InputError(f"which texts belong to this {type(index).__name__} is not known: pass documents=…, nodes=… or retriever=…")
