"""Texts by name that are on the host, and are read when code asks for them."""

from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, Sequence, ValuesView
from itertools import islice
from typing import TYPE_CHECKING, Any

# The host function that reads texts. Its name is not bound in the REPL.
READ_TEXTS = "_read_texts"
BATCH = 4_096  # texts that are looked at in one call
AHEAD = 64  # texts that are read at once when code goes through all
KEPT_CHARS = 32_000_000  # of the texts that were used last

# Numbers as runs (the first, and the one after the last), literals of which a text must have one,
# and whether their case is ignored; to how many of the numbers were looked at, [number, text] of
# each text, and [number, reason] of each that is left out.
Ask = Callable[[Sequence[Sequence[int]], Sequence[str] | None, bool], Sequence[Any]]


class HostTexts:
    """Reads texts by their numbers.

    Args:
        ask: Calls the host.
        metadata: The value of `context_metadata`; it is told of texts that are left out.
        names: The names of the texts.
    """

    def __init__(self, ask: Ask, metadata: dict[str, Any], names: Sequence[str]) -> None:
        self.names = names
        self._ask = ask
        self._metadata = metadata
        self._kept: OrderedDict[int, str] = OrderedDict()  # the last one was used last
        self._chars = 0
        self._left_out: dict[int, str] = {}

    def __getitem__(self, number: int) -> str:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        for _, text in self.each([number]):
            return text
        raise KeyError(
            f"{self.names[number]!r} is left out of the context: {self._left_out[number]}"
        )

    def each(self, numbers: Sequence[int], *, step: int = AHEAD) -> Iterator[tuple[int, str]]:
        """The texts with these numbers, without those that are left out."""
        for at in range(0, len(numbers), step):
            yield from self._batch(numbers[at : at + step], None, ignores_case=False)

    def search(
        self, numbers: Sequence[int], literals: Sequence[str] | None, *, ignores_case: bool
    ) -> Iterator[tuple[int, str]]:
        """Those of these texts that contain one of the literals, and maybe others; None for all."""
        for at in range(0, len(numbers), BATCH):
            yield from self._batch(numbers[at : at + BATCH], literals, ignores_case=ignores_case)

    def _batch(
        self, numbers: Sequence[int], literals: Sequence[str] | None, *, ignores_case: bool
    ) -> Iterator[tuple[int, str]]:
        while numbers:
            done, texts, left_out = self._ask(_runs(numbers), literals, ignores_case)
            for number, reason in left_out:
                self._leave_out(number, reason)
            for number, text in texts:
                self._keep(number, text)
                yield number, text
            numbers = numbers[done:]

    def _keep(self, number: int, text: str) -> None:
        self._chars += len(text) - len(self._kept.pop(number, ""))
        self._kept[number] = text
        while self._chars > KEPT_CHARS and len(self._kept) > 1:
            self._chars -= len(self._kept.popitem(last=False)[1])

    def _leave_out(self, number: int, reason: str) -> None:
        if number in self._left_out:
            return
        self._left_out[number] = reason
        told = self._metadata.setdefault("left_out", {"files": 0, "reasons": {}, "names": {}})
        told["files"] += 1
        told["reasons"][reason] = told["reasons"].get(reason, 0) + 1
        told["names"][self.names[number]] = reason


if TYPE_CHECKING:
    _Texts = dict[str, Any]
else:

    class _Texts(MutableMapping, dict):
        """A dict whose methods are those of a mapping, which use `__getitem__`."""


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Rising numbers as runs: the first of each, and the one after its last."""
    if isinstance(numbers, range):
        return [[numbers.start, numbers.stop]]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return runs


class LazyTexts(_Texts):
    """The `context` of large folders: a dict of texts by path, each read when it is asked for.

    The values of the dict itself are the numbers of the texts, or what code has put there.
    """

    def __init__(self, texts: HostTexts) -> None:
        dict.__init__(self, zip(texts.names, range(len(texts.names)), strict=True))
        self._texts = texts

    def __getitem__(self, name: str) -> Any:
        held = dict.__getitem__(self, name)
        return self._texts[held] if type(held) is int else held

    __setitem__ = dict.__setitem__
    __delitem__ = dict.__delitem__
    __contains__ = dict.__contains__
    __len__ = dict.__len__
    clear = dict.clear
    keys = dict.keys

    def __iter__(self) -> Iterator[str]:
        # Not inherited: with another `__iter__`, `dict(context)` takes the texts from this class
        return dict.__iter__(self)

    def __repr__(self) -> str:
        names = "".join(f"{name!r}: …, " for name in islice(self, 3))
        return f"{{{names}… {len(self):,} texts in all, read when they are asked for}}"

    def values(self) -> Any:
        """The texts, without those that are left out."""
        return TextValues(self)

    def items(self) -> Any:
        """The names and texts, without those that are left out."""
        return TextItems(self)

    def copy(self) -> dict[str, Any]:
        """A dict of all names and texts."""
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | dict(other)

    def __ror__(self, other: Any) -> Any:
        return dict(other) | self.copy()

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """The names and texts, without those that are left out. Texts are read ahead."""
        pending: list[tuple[str, Any]] = []
        for name in list(self):
            if name in self:
                pending.append((name, dict.__getitem__(self, name)))
            if len(pending) == AHEAD:
                yield from self._read(pending)
                pending = []
        yield from self._read(pending)

    def _read(self, pairs: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        numbers = [held for _, held in pairs if type(held) is int]
        texts = self._texts.each(numbers)
        number, text = next(texts, (-1, ""))
        for name, held in pairs:
            if type(held) is not int:
                yield name, held
            elif held == number:
                yield name, text
                number, text = next(texts, (-1, ""))


class TextValues(ValuesView[Any]):
    """The texts, without those that are left out."""

    def __init__(self, texts: LazyTexts) -> None:
        super().__init__(texts)
        self._texts = texts

    def __iter__(self) -> Iterator[Any]:
        return (text for _, text in self._texts.pairs())


class TextItems(ItemsView[str, Any]):
    """The names and texts, without those that are left out."""

    def __init__(self, texts: LazyTexts) -> None:
        super().__init__(texts)
        self._texts = texts

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._texts.pairs()
