"""A router between a vector engine, for quick facts, and a run over the whole document, for
questions about all of it.

No key and no network are needed: LlamaIndex's mocks embed and answer for the vector engine; the
model of the other is "offline".

    python examples/llama_index_router.py
"""

import sys

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolMetadata

from rlm_integrations.llama_index import RLMQueryEngine, as_query_engine_tool

FACT = "The price of wool in Porto is 12 lire."


class ByWords(BaseSelector):
    """Chooses the whole document for questions that mention it.

    With a key, `LLMSingleSelector` lets a model choose.
    """

    def _select(self, choices: list[ToolMetadata], query: QueryBundle) -> SelectorResult:
        index = int("whole" in query.query_str)
        return SelectorResult(
            selections=[SingleSelection(index=index, reason=choices[index].description)]
        )

    async def _aselect(self, choices: list[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return self._select(choices, query)

    def _get_prompts(self) -> dict[str, object]:
        return {}

    def _update_prompts(self, prompts: dict[str, object]) -> None:
        """There are no prompts."""


def main() -> int:
    """Ask both, show, check; returns 0 if everything is right."""
    text = "Wool was sold, and praised, and weighed. " * 5_000
    document = Document(text=f"{text}{FACT} {text}")
    splitter = TokenTextSplitter(chunk_size=1_000)
    index = VectorStoreIndex.from_documents(
        [document], embed_model=MockEmbedding(embed_dim=8), transformations=[splitter]
    )
    quick = as_query_engine_tool(
        index.as_query_engine(llm=MockLLM(max_tokens=20)),
        "quick",
        "Quick facts from a few passages.",
    )
    whole = as_query_engine_tool(
        RLMQueryEngine.from_defaults(document, llm="offline"),
        "whole",
        "Questions about all of the text.",
    )
    router = RouterQueryEngine(ByWords(), [quick, whole], llm=MockLLM())
    answers = []
    for question in ("What was praised?", "In the whole text, what is the price of wool in Porto?"):
        response = router.query(question)
        answers.append(str(response))
        print(
            f"Q: {question}\nby: {response.metadata['selector_result'].reason}\nA: "
            f"{answers[-1][:200]}\n"
        )
    return 0 if FACT in answers[1] and FACT not in answers[0] else 1


if __name__ == "__main__":
    sys.exit(main())
