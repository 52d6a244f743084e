"""Send many prompts to one model, a few at a time, in a chain: a reply or a typed error for each,
in order.

No key and no network are needed: see langchain_huge_document.py.

    python examples/langchain_batch.py [--spoil]
"""

import sys
from collections.abc import Sequence

from _documents import letters, report
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda

from rlm_integrations import LLMError
from rlm_integrations.langchain import LLMBatchRunnable

PLACES = "Lisbon Porto Bergen Tallinn Ghent Trieste Cadiz Galway Utrecht Turku".split()
TEMPLATE = PromptTemplate.from_template("What did the repairs cost?\n\n{letter}")


def prompts(pages: list[str]) -> list[PromptValue]:
    """One prompt for each letter."""
    return [TEMPLATE.invoke({"letter": page}) for page in pages]


def main(argv: Sequence[str] = ()) -> int:
    """Send all prompts, and check the replies; returns 0 if all are right, otherwise 1."""
    costs = {place: f"{3 * number + 20} ducats" for number, place in enumerate(PLACES)}
    pages = letters([f"In {place} the repairs cost {cost}." for place, cost in costs.items()])
    if "--spoil" in argv:  # remove a fact, to see the check fail
        pages[3] = pages[3].replace("ducats", "******")

    chain = RunnableLambda(prompts) | LLMBatchRunnable("offline", max_concurrent=4)
    replies = chain.invoke(pages)

    wrong = 0
    for place, cost, reply in zip(costs, costs.values(), replies, strict=True):
        is_right = (
            not isinstance(reply, LLMError) and f"In {place} the repairs cost {cost}." in reply
        )
        print(f"{place:<8} {reply} {'' if is_right else 'WRONG'}")
        wrong += not is_right
    return report(wrong, len(replies), "replies")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
