"""The nodes of an index that hold document text, without summaries that a model wrote."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from typing import Any, Final

from llama_index.core import VectorStoreIndex
from llama_index.core.data_structs.data_structs import (
    IndexDict,
    IndexGraph,
    IndexList,
    KeywordTable,
)
from llama_index.core.data_structs.document_summary import IndexDocumentSummary
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, Document
from llama_index.core.storage.docstore import BaseDocumentStore

from rlm_integrations.errors import InputError

_ALL: Final = 10_000_000  # nodes; some vector stores list only 9,999 without a limit
_ALTERNATIVES: Final = (
    "pass retriever=index.as_retriever(similarity_top_k=…), or documents=… or nodes=…"
)


class Nodes:
    """The current nodes of an index. Creating and iterating it block.

    The nodes are in the order in which they were added to the document store. A vector store has no
    order: its nodes are listed document by document.

    Args:
        index: The index.

    Attributes:
        state: A value that changes whenever the text or metadata of a node, or the list of nodes,
            changes.

    Raises:
        InputError: The index does not list its nodes, or its stores do not.
    """

    def __init__(self, index: BaseIndex[Any]) -> None:
        self._docstore = index.docstore
        self._ids = tuple(dict.fromkeys(_ids(index)))
        self._stored = _stored(index, self._ids)
        self.state = (
            self._ids,
            _hashes(self._docstore, self._ids),
            tuple((node.node_id, node.hash) for node in self._stored),
        )

    def __iter__(self) -> Iterator[BaseNode]:
        wanted = set(self._ids)
        found = (
            [node for id_, node in self._docstore.docs.items() if id_ in wanted] if wanted else []
        )
        if wanted and not found:
            raise InputError(
                f"the document store of the index has none of its {len(wanted):,} nodes: "
                f"{_ALTERNATIVES}"
            )
        return iter([*found, *self._stored])


def text_in(docstore: BaseDocumentStore | None) -> Callable[[str], str | None]:
    """A function from a document id to the document's whole text, or None if the store does not
    have it. It blocks.
    """

    def text_of(document_id: str) -> str | None:
        found = (
            docstore.get_document(document_id, raise_error=False) if docstore is not None else None
        )
        return found.get_content() if isinstance(found, Document) else None

    return text_of


def docstore_of(retriever: object) -> BaseDocumentStore | None:
    """The document store that a retriever reads from, or None."""
    index = getattr(retriever, "_index", None)
    # No public attribute provides it
    found = getattr(retriever, "_docstore", None) or getattr(index, "docstore", None)
    return found if isinstance(found, BaseDocumentStore) else None


def _hashes(docstore: BaseDocumentStore, ids: Sequence[str]) -> tuple[object, ...]:
    """The hash of each node's text and metadata.

    A node whose hash the store does not know counts as changed.
    """
    if not ids:
        return ()
    known = {id_: hash_ for hash_, id_ in docstore.get_all_document_hashes().items()}
    hashes: tuple[object, ...] = tuple(map(known.get, ids))
    if None not in hashes:
        return hashes
    # The store lists only one of several nodes with equal hashes.
    return tuple(
        hash_ or docstore.get_document_hash(id_) or object()
        for id_, hash_ in zip(ids, hashes, strict=True)
    )


def _stored(index: BaseIndex[Any], ids: Sequence[str]) -> list[BaseNode]:
    """The nodes that are only in the vector store, as in Qdrant or Chroma."""
    if not isinstance(index, VectorStoreIndex) or not index.vector_store.stores_text:
        return []
    # Not public: the document store then has all nodes
    if index._store_nodes_override:  # noqa: SLF001
        return []
    known, get_nodes = set(ids), index.vector_store.get_nodes
    limit = {"limit": _ALL} if "limit" in signature(get_nodes).parameters else {}
    try:
        nodes = [
            node
            for node in get_nodes(node_ids=None, filters=None, **limit)
            if node.node_id not in known
        ]
    except NotImplementedError:
        store = type(index.vector_store).__name__
        raise InputError(
            f"the nodes of this index are in its {store}, which does not list them: {_ALTERNATIVES}"
        ) from None
    return sorted(
        nodes, key=lambda node: (node.ref_doc_id or "", getattr(node, "start_char_idx", None) or 0)
    )


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
        return (
            each
            for each in struct.all_nodes.values()
            if not struct.node_id_to_children_ids.get(each)
        )
    raise InputError(
        f"the nodes of this {type(index).__name__} cannot be listed: pass documents=…, "
        "nodes=… or retriever=…"
    )
