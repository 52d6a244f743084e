"""A chain that answers questions over a document of five megabytes, and cites the places that
support each answer.

No key and no network are needed: the model is "offline", a stand-in that finds sentences by their
words and quotes them. With a key, write `RLMRunnable("gpt-5", "gpt-5-mini", context=document)`, or
pass LangChain chat models.

    python examples/langchain_huge_document.py [--spoil]
"""

import sys
from collections.abc import Sequence
from typing import Any

from _documents import long_document
from langchain_core.runnables import RunnableLambda

from rlm_integrations.langchain import RLMRunnable

FACTS = {
    "What is the access code of the Bergen vault?": (
        "The access code of the Bergen vault is 40721.",
        "40721",
    ),
    "Who is the guardian of the Ghent archive?": (
        "The guardian of the Ghent archive is Irene Kovač.",
        "Irene Kovač",
    ),
}


def report(output: dict[str, Any]) -> dict[str, Any]:
    """The answer, and the quotes with their places, for a program after the chain."""
    quotes = [
        (each.page_content, each.metadata["spans"][0]["start"], each.metadata["spans"][0]["end"])
        for each in output["context"]
    ]
    return {"answer": output["answer"], "quotes": quotes}


def main(argv: Sequence[str] = ()) -> int:
    """Ask, and check the answers; returns 0 if all are right, otherwise 1."""
    document = long_document([fact for fact, _ in FACTS.values()], 5_000_000)
    if "--spoil" in argv:  # remove a fact, to see the check fail
        document = document.replace("40721", "*****")
    print(f"{len(document):,} characters")

    # The document is read once
    chain = RLMRunnable("offline", context=document) | RunnableLambda(report)

    wrong = 0
    for question, (_, value) in FACTS.items():
        output = chain.invoke(question)
        print(f"\nQ: {question}\nA: {output['answer']}")
        for quote, start, end in output["quotes"]:
            print(f"   {start:,}-{end:,} {quote!r}")
        holds = all(document[start:end] == quote for quote, start, end in output["quotes"])
        is_right = (
            value in output["answer"]
            and holds
            and any(value in quote for quote, _, _ in output["quotes"])
        )
        print("   right, and cited" if is_right else f"   WRONG: the document says {value!r}")
        wrong += not is_right
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
