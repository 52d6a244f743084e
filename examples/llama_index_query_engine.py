"""Ask a LlamaIndex query engine about five megabytes of text, and check that its sources are exact
quotes.

No key and no network are needed: the model is "offline", a stand-in that finds sentences by their
words and quotes them. With a key, pass any LlamaIndex LLM as `llm=`, and a cheaper one as
`sub_llm=`.

    python examples/llama_index_query_engine.py
"""

import sys

from _documents import long_document
from llama_index.core import Document

from rlm_integrations.llama_index import RLMQueryEngine

QUESTION = "Who is the guardian of the Ravenna archive?"
FACT = "The guardian of the Ravenna archive is Ada Conti."


def main() -> int:
    """Ask, show, check; returns 0 if everything is right."""
    text = long_document([FACT], 5_000_000)
    whole = Document(text=text, id_="chronicle", metadata={"title": "Chronicle"})
    print(f"{len(whole.text):,} characters")
    engine = RLMQueryEngine.from_defaults([whole], llm="offline", streaming=True)
    response = engine.query(QUESTION)
    print(f"Q: {QUESTION}\nA: ", end="")
    response.print_response_stream()
    print(f"\n{response.metadata}")
    right = FACT in str(response) and bool(response.source_nodes)
    for source in response.source_nodes:
        node = source.node
        held = (
            node.ref_doc_id == "chronicle"
            and whole.text[node.start_char_idx : node.end_char_idx] == node.text
        )
        print(
            f"{node.metadata['title']} {node.start_char_idx:,}-{node.end_char_idx:,} "
            f"{'holds' if held else 'does NOT hold'}: {node.text!r}"
        )
        right = right and held
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
