"""The documents of the examples: long texts about nothing, with facts hidden in them."""

from collections.abc import Sequence

CHATTER = "The clerk counted the barrels. It rained during the fair. A merchant forgot the price of salt. "


def long_document(facts: Sequence[str], characters: int) -> str:
    """About this many characters, with the facts spread evenly."""
    filler = CHATTER * (characters // len(CHATTER) // (len(facts) + 1))
    return filler + "".join(f"{fact} {filler}" for fact in facts)


def letters(facts: Sequence[str]) -> list[str]:
    """A letter of two thousand characters about each fact."""
    return [long_document([fact], 2_000) for fact in facts]


def report(wrong: int, total: int, what: str) -> int:
    """Print how many of the checked replies are wrong; the exit code of the example."""
    if wrong:
        print(f"{wrong} of {total} {what} are wrong")
    else:
        print(f"all {what} are right, and in order")
    return int(wrong > 0)
