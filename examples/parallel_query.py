"""Map and reduce over a long document: `parallel_query` from Python, and the same inside a run,
where the root model's code calls it.

No key and no network are needed: the offline model finds sentences by their words, and the root
model of the run is a short script. With a key, replace both with names of models.

    python examples/parallel_query.py [--spoil]
"""

import sys
from collections.abc import Sequence

from _documents import long_document, report

from rlm_integrations import RLM, Completion, Request, parallel_query

TOWNS = "Aosta Biella Cuneo Domodossola".split()
FACTS = [
    f"The bridge of {town} was closed in {1501 + number}." for number, town in enumerate(TOWNS)
]
TEMPLATE = "Which bridges were closed?\n\n{chunk}"
SIZE = 6_000  # characters of a chunk

PROGRAM = f"""\
I cut the document, ask about all chunks at once, and keep what was found.

```repl
chunks = [context[at : at + {SIZE}] for at in range(0, len(context), {SIZE})]
findings = parallel_query({TEMPLATE!r}, chunks)
quotes = [line[2:] for reply in findings for line in reply.splitlines() if line.startswith("- ")]
FINAL("\\n".join(quotes), evidence=quotes)
```"""


class Script:
    """A root model that writes the same program for every question."""

    name, context_window = "script", None

    async def complete(self, request: Request) -> Completion:
        """The program; a real model would read the question and the description of the document in
        the request.
        """
        return Completion(PROGRAM if request.role == "root" else "I only write programs.")


def main(argv: Sequence[str] = ()) -> int:
    """Query all chunks, outside a run and inside one, and check the findings; returns 0 if all are
    right, otherwise 1.
    """
    document = long_document(FACTS, 90_000)
    if "--spoil" in argv:  # remove a fact, to see the check fail
        document = document.replace("Cuneo was closed", "Cuneo was ******")

    chunks = [document[at : at + SIZE] for at in range(0, len(document), SIZE)]
    replies = parallel_query(TEMPLATE, chunks, "offline", max_concurrent=4)
    result = RLM(Script(), "offline").completion("Which bridges were closed?", document)

    wrong = 0
    for fact in FACTS:
        (place,) = [number for number, chunk in enumerate(chunks) if fact in chunk] or [-1]
        cited = [document[each.start : each.end] for each in result.citations]
        is_right = place >= 0 and fact in replies[place] and fact in result.answer and fact in cited
        print(f"chunk {place:>2}: {fact} {'' if is_right else 'WRONG'}")
        wrong += not is_right
    (turn,) = result.trajectory
    print(
        f"{len(chunks)} chunks, {turn.calls} sub-calls in turn {turn.iteration}, "
        f"{len(result.citations)} citations"
    )
    return report(wrong, len(FACTS), "findings")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
