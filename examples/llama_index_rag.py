"""A RAG pipeline whose synthesizer reads every page that the retriever finds, however many: here
four hundred.

No key and no network are needed: the model is "offline", and a few lines embed pages by their
words.

    python examples/llama_index_rag.py
"""

import sys
from zlib import crc32

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.query_engine import RetrieverQueryEngine

from rlm_integrations.llama_index import RLMSynthesizer

QUESTION = "Which ship was lost at Varna?"
FACT = "The ship that was lost at Varna is the Aurora."


class Words(BaseEmbedding):
    """An embedding of a text by its words, each in one of 64 dimensions."""

    def _embed(self, text: str) -> list[float]:
        vector = [0.0] * 64
        for word in text.lower().split():
            vector[crc32(word.encode()) % 64] += 1.0
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._embed(query)


def main() -> int:
    """Ask, show, check; returns 0 if everything is right."""
    pages = [
        f"Report {number}. A ship was seen at harbour {number} in calm weather."
        for number in range(400)
    ]
    pages[217] += f" {FACT}"
    documents = [
        Document(text=text, id_=f"page-{number}", metadata={"page": number})
        for number, text in enumerate(pages)
    ]
    index = VectorStoreIndex.from_documents(
        documents, embed_model=Words(), transformations=[TokenTextSplitter()]
    )
    synthesizer = RLMSynthesizer("offline")
    engine = RetrieverQueryEngine(
        index.as_retriever(similarity_top_k=400), response_synthesizer=synthesizer
    )
    response = engine.query(QUESTION)
    print(f"Q: {QUESTION}\nA: {response}\n{response.metadata}")
    right = FACT in str(response)
    for source in response.source_nodes:
        print(
            f"page {source.node.metadata['page']}, score {source.score:.2f}: {source.node.text!r}"
        )
    return (
        0
        if right and [source.node.metadata["page"] for source in response.source_nodes] == [217]
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
