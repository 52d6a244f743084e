"""Documents of runs in the lake: each text once for all runs."""

import json
from collections.abc import Iterator
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.layout import Layout
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import DamagedDataError
from rlm_integrations.storage.lake import Lake


def keep_corpus(lake: Lake, corpus: Corpus) -> tuple[str, list[str]]:
    """Keep a document. Blocks; call it in a thread.

    Returns:
        The SHA-256 of its description, and of all blobs that it needs.
    """
    for source in corpus.sources:
        if not lake.has(source.sha256):  # else it was kept for another run
            lake.put(corpus.text(source.name).encode("utf-8", "surrogatepass"))
    sources = [
        {
            "sha256": source.sha256,
            "metadata": dict(source.metadata),
            "id": source.document_id,
            "hidden": sorted(source.hidden),
            "name": source.name if corpus.is_named else None,
            "label": source.label,
            "layout": None if source.layout is None else source.layout.to_dict(),
        }
        for source in corpus.sources
    ]
    described = {"is_list": corpus.is_list, "sources": sources, "left_out": dict(corpus.left_out)}
    sha256 = lake.put(json.dumps(described, separators=(",", ":")).encode())
    return sha256, [sha256, *(source.sha256 for source in corpus.sources)]


def read_corpus(lake: Lake, sha256: str) -> Corpus:
    """The document that `keep_corpus` kept. Blocks; call it in a thread.

    Raises:
        StorageError: A blob is missing.
        DamagedDataError: A blob is not what was written.
    """
    try:
        described = json.loads(lake.get(sha256))
        documents = _documents(lake, described["sources"])
        return Corpus.build(
            documents if described["is_list"] else next(documents),
            left_out=dict(described["left_out"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedDataError(f"the document of the run is damaged: {error}") from error


def _documents(lake: Lake, sources: list[Any]) -> Iterator[SourceDocument]:
    for source in sources:
        text = lake.get(source["sha256"]).decode("utf-8", "surrogatepass")
        yield SourceDocument(
            text,
            dict(source["metadata"]),
            source["id"],
            frozenset(source["hidden"]),
            source["name"],
            source["label"],
            None if source["layout"] is None else Layout.from_dict(source["layout"]),
        )
