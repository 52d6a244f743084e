"""Chooses the calls that fail: seeded, exact, and the same in every run."""

import random

from tests.standin.settings import Fault, Settings

DECK = 100


class Chooser:
    """Returns the fault of each call, in order of arrival."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._used: dict[int, int] = {}
        self._block = -1
        self._deck: list[int | None] = []

    def choose(self, number: int, prompt: str) -> Fault | None:
        """The fault of this call, or None."""
        for index, fault in enumerate(self._settings.faults):
            if self._meets(index, fault, number, prompt):
                used = self._used.get(index, 0)
                if fault.times is None or used < fault.times:
                    self._used[index] = used + 1
                    return fault
        return None

    def _meets(self, index: int, fault: Fault, number: int, prompt: str) -> bool:
        if fault.rate:
            return self._card(number) == index
        if fault.at:
            return number in fault.at
        return fault.match in prompt

    def _card(self, number: int) -> int | None:
        """Every hundred calls draw from a newly shuffled deck that has each fault as often as its
        rate.
        """
        block, place = divmod(number, DECK)
        if block != self._block:
            deck: list[int | None] = []
            for index, fault in enumerate(self._settings.faults):
                deck += [index] * round(fault.rate * DECK)
            deck += [None] * (DECK - len(deck))
            random.Random(f"{self._settings.seed}/{block}").shuffle(deck)
            self._block, self._deck = block, deck
        return self._deck[place]
