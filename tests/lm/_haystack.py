"""A long text with facts hidden in it."""

import random

WORDS = (
    "the of and captain ship water stone river market code letter garden house window morning"
    " people opened access street vault church music number city every road winter soldier horse"
    " table money doctor village forest bridge summer paper king evening"
).split()
LISBON = "The access code of the Lisbon vault is 48213."
ASKED = "What is the access code of the Lisbon vault?"


def haystack(size: int, *needles: str, seed: int = 1) -> str:
    """Paragraphs of sentences with the words of the questions, and the needles at random places."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(6, 16))).capitalize() + "."

    pool = [" ".join(sentence() for _ in range(rng.randint(3, 8))) for _ in range(500)]
    mean = sum(map(len, pool)) // len(pool) + 2
    paragraphs = rng.choices(pool, k=size // mean + 1)
    for needle in needles:
        paragraphs.insert(rng.randrange(len(paragraphs)), needle)
    return "\n\n".join(paragraphs)
