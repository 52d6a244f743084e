"""The documents of the examples: long meaningless texts with hidden facts."""

from collections.abc import Sequence

CHATTER = (
    "The clerk counted the barrels. It rained during the fair. A merchant forgot the price of "
    "salt. "
)


def long_document(facts: Sequence[str], characters: int) -> str:
    """A text of about this many characters, with the facts spread evenly."""
    filler = CHATTER * (characters // len(CHATTER) // (len(facts) + 1))
    return filler + "".join(f"{fact} {filler}" for fact in facts)


def letters(facts: Sequence[str]) -> list[str]:
    """One letter of two thousand characters for each fact."""
    return [long_document([fact], 2_000) for fact in facts]


def report(wrong: int, total: int, what: str) -> int:
    """Print how many of the checked replies are wrong; returns the exit code of the example."""
    if wrong:
        print(f"{wrong} of {total} {what} are wrong")
    else:
        print(f"all {what} are right, and in order")
    return int(wrong > 0)
