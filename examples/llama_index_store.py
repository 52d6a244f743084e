"""Search the findings of a run, long after its answer.

No key and no network are needed: LlamaIndex's mock writes a program like a root model's, which
stores a note on each chapter.

    python examples/llama_index_store.py
"""

import sys
from collections.abc import Sequence
from typing import Any

from llama_index.core import Document
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM

from rlm_integrations.llama_index import RLMQueryEngine, RLMStoreRetriever

TOWNS = "Lisbon Porto Bergen Tallinn Ghent Trieste Cadiz Galway".split()
PROGRAM = """```repl
chapters = context.split("\\n\\n")
summaries = parallel_query("Say in one sentence what this is about: {chunk}", chapters)
for chapter, summary in zip(chapters, summaries):
    first = chapter.split(". ")[0] + "."
    store.create("note", summary, first, backrefs=[cite(chapter)], tags=["chapter"])
FINAL(f"There are {len(chapters)} chapters.", evidence=[cite(chapters[0])])
```"""


def as_a_model_would(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """The root writes the program; a sub-model repeats the chapter's first words."""
    is_root = messages[0].role.value == "system"
    said = PROGRAM if is_root else (messages[-1].content or "").partition(": ")[2].partition(".")[0]
    return ChatMessage(said, role="assistant")


def main() -> int:
    """Ask, search, show, check; returns 0 if everything is right."""
    text = "\n\n".join(
        f"The harbour of {town} was deep. Ships came there by night." for town in TOWNS
    )
    llm = MockFunctionCallingLLM(response_generator=as_a_model_would)
    engine = RLMQueryEngine.from_defaults(Document(text=text, id_="harbours"), llm=llm)
    print(f"A: {engine.query('How many chapters are there?')}")
    found = RLMStoreRetriever(engine.last_store, k=1).retrieve("harbour of Bergen")
    for each in found:
        print(
            f"score {each.score:.2f}: {each.node.text!r}, from {each.node.ref_doc_id} "
            f"{each.node.metadata['spans']}"
        )
    (summary,) = RLMStoreRetriever(engine.last_store, mode="summary", k=2).retrieve("type=note")
    print(summary.node.text)
    texts = [each.node.text for each in found]
    return (
        0
        if texts == ["The harbour of Bergen was deep."]
        and summary.node.text.startswith("8 objects")
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
