"""Search the findings of a run like any collection of documents: each finding has the supporting
place in the document.

The root model here is a small object that always writes the same program; a real model writes a
program for the question. No key and no network are needed.

    python examples/langchain_store_retriever.py [--spoil]
"""

import sys
from collections.abc import Sequence

from _documents import long_document
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from rlm_integrations.langchain import RLMRunnable, RLMStoreRetriever
from rlm_integrations.records import Completion, Request

PROGRAM = r"""```repl
import re

for found in re.finditer(r"The (\w+) bridge was opened in (\d{4})\.", context):
    store.create("opening", f"when the {found[1]} bridge was opened", found[0],
                 backrefs=[SpanRef("context_0", *found.span())],
                 tags=[found[1].lower(), f"{found[2][:2]}00s"])
FINAL(f"There are {store.summary('type=opening')['total']} bridges.")
```"""
BRIDGES = {"Lisbon": 1966, "Porto": 1886, "Bergen": 1956, "Ghent": 1913, "Turku": 1899}


class Surveyor:
    """A model that writes the same program for every question."""

    name = "surveyor"
    context_window: int | None = None

    # The request makes no difference
    async def complete(self, request: Request) -> Completion:  # noqa: ARG002
        """The program."""
        return Completion(PROGRAM, model=self.name)


def main(argv: Sequence[str] = ()) -> int:
    """Run once, search the findings, and check them; returns 0 if they are right, otherwise 1."""
    facts = [f"The {name} bridge was opened in {year}." for name, year in BRIDGES.items()]
    document = long_document(facts, 350_000)
    if "--spoil" in argv:  # remove a fact, to see the check fail
        document = document.replace("1886", "****")

    output = RLMRunnable(Surveyor(), context=document).invoke("Which bridges are there?")
    print(output["answer"])

    # `output["rlm"]["store_id"]` works too, within this process
    retriever = RLMStoreRetriever(store=output)

    def lines(found: list[Document]) -> list[str]:
        return [f"{each.page_content} [{each.metadata['spans'][0]['start']:,}]" for each in found]

    chain = retriever | RunnableLambda(lines)
    for query in (
        "type=opening tag=1800s",
        "when was the bridge of Porto opened?",
        "type=opening desc~ghent|bergen sort=oldest",
    ):
        print(f"\n{query}", *chain.invoke(query), sep="\n   ")
    print(
        "\n"
        + RLMStoreRetriever(store=output, mode="summary").invoke("type=opening")[0].page_content
    )

    found = retriever.search("type=opening", k=10)
    right = set(facts)
    holds = all(
        document[span["start"] : span["end"]] == each.page_content
        for each in found
        for span in each.metadata["spans"]
    )
    best = retriever.search("when was the bridge of Porto opened?", k=1)[0].page_content
    is_right = (
        {each.page_content for each in found} == right
        and holds
        and best == "The Porto bridge was opened in 1886."
    )
    print(
        "\nright, and each at its place"
        if is_right
        else f"\nWRONG: the document says {sorted(right)}"
    )
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
