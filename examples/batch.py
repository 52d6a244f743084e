"""Send many prompts to one model: replies in order, as they complete, and with the cost of each
call.

No key and no network are needed: the offline model finds sentences by their words. With a key,
replace it with a model's name.

    python examples/batch.py [--spoil]
"""

import sys
from collections.abc import Sequence

from _documents import letters, report

from rlm_integrations import LLMError, llm_batch, llm_batch_iter, llm_batch_records

TOWNS = "Lisbon Porto Bergen Tallinn Ghent Trieste Cadiz Galway Utrecht Turku".split()


def main(argv: Sequence[str] = ()) -> int:
    """Send all prompts in three ways, and check the replies; returns 0 if all are right, otherwise
    1.
    """
    facts = {
        town: f"In {town} the harbour was built in {1400 + 10 * number}."
        for number, town in enumerate(TOWNS)
    }
    pages = letters(list(facts.values()))
    if "--spoil" in argv:  # remove a fact, to see the check fail
        pages[3] = pages[3].replace("harbour", "*******")
    prompts = [f"When was the harbour built?\n\n{page}" for page in pages]

    replies = llm_batch(prompts, "offline", max_concurrent=4)
    as_they_came = dict(llm_batch_iter(prompts, "offline"))
    records = llm_batch_records(prompts, "offline")

    wrong = 0
    for number, (town, fact) in enumerate(facts.items()):
        reply, record = replies[number], records[number]
        same = reply == as_they_came[number] == record.reply
        is_right = (
            not isinstance(reply, LLMError) and fact in reply and same and record.usage is not None
        )
        tokens = record.usage.input_tokens if record.usage is not None else "unknown"
        print(
            f"{town:<8} {reply} ({tokens} tokens read, cost {record.cost}) "
            f"{'' if is_right else 'WRONG'}"
        )
        wrong += not is_right
    return report(wrong, len(replies), "replies")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
