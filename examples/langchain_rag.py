"""A RAG pipeline whose documents are too long for a prompt: a retriever finds them, and the
runnable reads them completely.

The retriever here is a small one that counts words; replace it with any LangChain retriever. The
evidence of each answer has the document's own id and metadata.

No key and no network are needed: see langchain_huge_document.py.

    python examples/langchain_rag.py [--spoil]
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from random import Random

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from rlm_integrations.langchain import RLMRunnable

PLACES = "Lisbon Porto Bergen Tallinn Ghent Trieste Cadiz Galway Utrecht Turku".split()
CHATTER = (
    "The {} council met again.|Of the harbour of {} little is known.|In {} it rained.|The bakers "
    "of {} complained."
).split("|")
QUESTION = "How many ships were repaired in Trieste in 1871?"
VALUE = "forty-three"


class Keywords(BaseRetriever):
    """Finds the documents in which a query's rare words are frequent."""

    documents: list[Document]
    k: int = 3

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain's
    ) -> list[Document]:
        counts = [Counter(words(each.page_content)) for each in self.documents]
        rarity = {
            word: math.log(len(counts) / (1 + sum(word in each for each in counts)))
            for word in words(query)
        }
        scores = [
            sum(weight * each[word] / each.total() for word, weight in rarity.items())
            for each in counts
        ]
        ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        return [self.documents[number] for number in ranked[: self.k]]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def made_up() -> list[Document]:
    """A report of 100,000 characters on each place, with the number of repaired ships."""
    random = Random(7)  # noqa: S311 - no secret
    documents = []
    for number, place in enumerate(PLACES):
        sentences = [random.choice(CHATTER).format(place) for _ in range(3_300)]
        value = VALUE if place == "Trieste" else f"some {number}"
        sentences.insert(
            random.randrange(len(sentences)), f"In 1871 {value} ships were repaired in {place}."
        )
        documents.append(
            Document(
                " ".join(sentences), id=f"report-{number}", metadata={"title": f"Report on {place}"}
            )
        )
    return documents


def main(argv: Sequence[str] = ()) -> int:
    """Ask, and check the answer; returns 0 if it is right, otherwise 1."""
    documents = made_up()
    if "--spoil" in argv:  # remove the fact, to see the check fail
        documents = [
            Document(each.page_content.replace(VALUE, "*****"), id=each.id, metadata=each.metadata)
            for each in documents
        ]

    retriever = Keywords(documents=documents)
    chain = {
        "question": itemgetter("question"),
        "context": itemgetter("question") | retriever,
    } | RLMRunnable("offline")

    output = chain.invoke({"question": QUESTION})
    print(f"Q: {QUESTION}\nA: {output['answer']}")
    is_right = VALUE in output["answer"]
    by_id = {each.id: each for each in documents}
    for evidence in output["context"]:
        about = evidence.metadata
        (span,) = about["spans"]
        print(
            f"   {about['source_metadata'].get('title')}, {span['start']:,}-{span['end']:,}: "
            f"{evidence.page_content!r}"
        )
        is_right &= (
            by_id[span["doc_id"]].page_content[span["start"] : span["end"]] == evidence.page_content
        )
    is_right &= any(
        each.metadata["source_metadata"] == {"title": "Report on Trieste"}
        for each in output["context"]
    )
    print("right, and cited" if is_right else f"WRONG: the report says {VALUE!r}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
