"""The document on the host's side: named sources, counted, hashed and read in slices.

Offsets are characters (code points) within one source; line ends are unchanged. A source is stored
at fixed width in one sealed memory file, into which files are decoded in steps. Beyond 64 MB an
ASCII file is read from the disk: if it changes later, reads raise `ContextError`.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus.documents import check_encoding, documents, read_document
from rlm_integrations.corpus.fixed_width import (
    MAXCHARS,
    WIDTHS,
    ByteSource,
    Memory,
    StoredText,
    Writer,
)
from rlm_integrations.corpus.places import Place, read_together
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef

T = TypeVar("T")

_EMPTY: Final[Mapping[str, Any]] = {}
_MAX_GROUP_TEXTS: Final = 256  # read at once


@dataclass(frozen=True, slots=True)
class Source:
    """The facts of one source.

    Attributes:
        name: `context_0`, `context_1` and so on.
        length: How many characters it has.
        sha256: Of its UTF-8 bytes (lone surrogates as "surrogatepass" writes them), in hexadecimal.
        maxchar: The least of 127, 255, 65,535 and 1,114,111 that no character exceeds.
        metadata: The document's metadata, in JSON's types.
        document_id: The document's own id, or None.
        hidden: The keys of `metadata` that no model may see: `context_metadata` omits them.
    """

    name: str
    length: int
    sha256: str
    maxchar: int
    metadata: Mapping[str, Any]
    document_id: str | None = None
    hidden: frozenset[str] = frozenset()

    @property
    def width(self) -> int:
        """Bytes that a character takes in a Python str of this text."""
        return WIDTHS[MAXCHARS.index(self.maxchar)]


@dataclass(frozen=True, slots=True)
class Piece:
    """One source on its way to another process, with all that it takes to fill a str.

    Attributes:
        file: The index of its descriptor in the order of `Handover.files`.
        offset: Its first byte there.
        chars: How many characters it has.
        stored: Bytes a character takes there: 1, 2 or 4.
        maxchar: As in `Source`; it may need less width than `stored`.
    """

    file: int
    offset: int
    chars: int
    stored: int
    maxchar: int


@dataclass(frozen=True, slots=True)
class Handover:
    """A corpus on its way to another process: one piece for each source, in order."""

    pieces: tuple[Piece, ...]
    is_list: bool
    _stores: tuple[ByteSource, ...]

    def files(self) -> Iterator[int]:
        """Each descriptor, open until the next is asked for, so that a thousand files never need a
        thousand descriptors.

        Raises:
            ContextError: A file has changed since it was read.
        """
        for store in self._stores:
            with store.opened() as fd:
                yield fd


@dataclass(frozen=True, slots=True)
class _Origin:
    """A part of a source that is a span of the root's document; `at` is its first character in the
    source.
    """

    at: int
    span: SpanRef

    def within(self, cut: SpanRef) -> "_Origin | None":
        """The part of it inside this span of the source, relative to the span's start."""
        first = max(self.at, cut.start)
        count = min(self.at + _length(self.span), cut.end) - first
        start = self.span.start + first - self.at
        return (
            _Origin(first - cut.start, SpanRef(self.span.source, start, start + count))
            if count > 0
            else None
        )

    def followed_by(self, other: "_Origin") -> "_Origin | None":
        """Both as one, if the other continues this one in the source and in the root."""
        if self.at + _length(self.span) == other.at and (self.span.source, self.span.end) == (
            other.span.source,
            other.span.start,
        ):
            return _Origin(self.at, SpanRef(self.span.source, self.span.start, other.span.end))
        return None


class Corpus:
    """A string, or a list of strings, stored once and read in slices.

    Made by `Corpus.build`, and for a child run by `slice`. Threads may share it; a child may outlive
    its parent.

    Attributes:
        sources: The facts of each source, in order.
        is_list: Whether the context is a list, not a single string.
        lengths: How many characters each source has.
        characters: The sum of the lengths.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        places: Sequence[Place],
        *,
        is_list: bool,
        origins: Sequence[tuple[_Origin, ...]] | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.is_list = is_list
        self._numbers = {source.name: number for number, source in enumerate(self.sources)}
        self._places: Sequence[Place] | None = places
        self._origins = origins  # None for the root, whose spans need no lifting
        self.lengths = tuple(source.length for source in self.sources)
        self.characters = sum(self.lengths)
        self._kept: dict[str, Any] = {}
        self._keeping = threading.RLock()

    @classmethod
    def build(cls, context: object, *, encoding: str = "utf-8", errors: str = "strict") -> Self:
        """The corpus of a string, a path, a document of LangChain or LlamaIndex, or an iterable of
        these.

        It blocks, and holds the GIL for less than a millisecond at a time: run it off the event
        loop.

        Args:
            context: The string, path or document, or an iterable of these.
            encoding: The encoding of files.
            errors: How bytes that are invalid in it are handled, as in `bytes.decode`.

        Raises:
            ContextError: It cannot be read as text; the message says what to do.
        """
        check_encoding(encoding, errors)
        single = read_document(context)
        sources, places = [], []
        with Memory() as memory:
            writer = Writer(memory)
            for number, each in enumerate([single] if single else documents(context)):
                run, sha256 = each.read(writer, encoding, errors)
                places.append(Place(run, 0, run.length))
                sources.append(
                    _source(number, places[-1], sha256, each.metadata, each.id, each.hidden)
                )
        return cls(sources, places, is_list=single is None)

    def slice(
        self, parts: Sequence[SpanRef | str | Sequence[SpanRef | str]], *, is_list: bool = True
    ) -> "Corpus":
        """A child corpus with one source for each part.

        A span is shared, not copied. A string is written, and so is a sequence of spans and strings
        that together make one source. All of it is read once for its hash: run it off the event
        loop.

        Raises:
            InputError: A span is outside of its source.
        """
        if not is_list and len(parts) != 1:
            raise InputError(f"a single source is made of one part, not of {len(parts)}")
        sources, places, origins = [], [], []
        with Memory() as memory:
            writer = Writer(memory)
            for number, part in enumerate(parts):
                if isinstance(part, SpanRef):
                    place, parent = self._place(part), self.sources[self._numbers[part.source]]
                    sha256 = (
                        parent.sha256
                        if place.end - place.start == parent.length
                        else _sha256(place)
                    )
                    sources.append(
                        _source(
                            number,
                            place,
                            sha256,
                            parent.metadata,
                            parent.document_id,
                            parent.hidden,
                        )
                    )
                    origins.append(self._origins_of(part))
                else:
                    made_of, run, sha256 = self._written(
                        [part] if isinstance(part, str) else part, writer
                    )
                    place = Place(run, 0, run.length)
                    sources.append(_source(number, place, sha256))
                    origins.append(made_of)
                places.append(place)
        return Corpus(sources, places, is_list=is_list, origins=origins)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the text; its memory is freed once no child, handover or read of another thread
        uses it.
        """
        self._places = None
        self._kept = {}

    def __repr__(self) -> str:
        return f"<Corpus of {len(self.sources)} sources, {self.characters:,} characters>"

    def kept(self, key: str, make: "Callable[[Corpus], T]") -> T:
        """A value that is computed once from this corpus and kept until it is closed, for all runs
        over it; it blocks.

        Raises:
            ContextError: The corpus was closed.
        """
        self._open_places()
        with self._keeping:
            if key not in self._kept:
                self._kept[key] = make(self)
            made: T = self._kept[key]
            return made

    @property
    def sha256(self) -> str:
        """The hash of its content: whether it is a list, and the hashes of its sources in order,
        without metadata.
        """
        lines = "".join(f"{source.sha256}\n" for source in self.sources)
        return hashlib.sha256(f"{'list' if self.is_list else 'text'}\n{lines}".encode()).hexdigest()

    @property
    def metadata(self) -> dict[str, Any]:
        """The REPL's `context_metadata`, in JSON's types."""
        return {
            "type": "list of texts" if self.is_list else "text",
            "characters": self.characters,
            "sources": [
                {
                    "name": source.name,
                    "characters": source.length,
                    **({"id": source.document_id} if source.document_id is not None else {}),
                    "metadata": {
                        key: value
                        for key, value in source.metadata.items()
                        if key not in source.hidden
                    },
                }
                for source in self.sources
            ],
        }

    def length(self, source: str) -> int:
        """How many characters this source has.

        Raises:
            InputError: There is no such source.
        """
        return self.source(source).length

    def source(self, name: str) -> Source:
        """The facts of this source.

        Raises:
            InputError: There is no such source.
        """
        return self.sources[self.number(name)]

    def text(self, source: str, start: int = 0, end: int | None = None) -> str:
        """The characters of a source from `start` up to `end`, at a cost that depends on their
        number alone.

        For documents of many megabytes iterate, or use the handover: this holds the text twice for
        a moment.

        Raises:
            InputError: The source or the place does not exist.
            ContextError: Its file has changed, or the corpus was closed.
        """
        place = self._place(SpanRef(source, start, self.length(source) if end is None else end))
        spend(place.end - place.start)
        return place.run.read(place.start, place.end)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every source's name with its text, in steps: a long text gives several pairs, an empty
        one gives none.
        """
        for source, place in zip(self.sources, self._open_places(), strict=True):
            for piece in place.steps():
                yield source.name, piece

    def short_texts(self, most: int) -> Iterator[tuple[str, str | None]]:
        """Every source's name, in order, with its text, or None if it has more than `most`
        characters.

        Adjacent texts in memory are read at once: in a list of many short texts, each costs a few
        microseconds.

        Raises:
            ContextError: As `text`.
        """
        group: list[tuple[str, Place]] = []
        for source, place in zip(self.sources, self._open_places(), strict=True):
            if group and (
                source.length > most
                or len(group) == _MAX_GROUP_TEXTS
                or not group[-1][1].is_beside(place)
            ):
                yield from read_together(group)
                group = []
            if source.length > most:
                yield source.name, None
            else:
                group.append((source.name, place))
        yield from read_together(group)

    def lift(self, span: SpanRef) -> SpanRef | None:
        """This span in the root's document, or None if it contains other text.

        Raises:
            InputError: The source or the place does not exist.
        """
        self._check(span)
        if self._origins is None:
            return span
        origins = self._origins_of(span)
        return (
            origins[0].span
            if len(origins) == 1 and _length(origins[0].span) == _length(span)
            else None
        )

    def handover(self) -> Handover:
        """The places of the sources, and the descriptors to send to another process."""
        stores: dict[int, tuple[int, ByteSource]] = {}
        pieces = []
        for source, place in zip(self.sources, self._open_places(), strict=True):
            run = place.run
            file, _ = stores.setdefault(id(run.store), (len(stores), run.store))
            pieces.append(
                Piece(
                    file,
                    run.offset + place.start * run.width,
                    source.length,
                    run.width,
                    source.maxchar,
                )
            )
        return Handover(tuple(pieces), self.is_list, tuple(store for _, store in stores.values()))

    def _open_places(self) -> Sequence[Place]:
        places = self._places
        if places is None:
            raise ContextError("this corpus was closed: build it again")
        return places

    def number(self, source: str) -> int:
        """The index of this source in `sources`.

        Raises:
            InputError: There is no such source.
        """
        try:
            return self._numbers[source]
        except KeyError:
            names = (
                f"there are {self.sources[0].name} to {self.sources[-1].name}"
                if self.sources
                else "there is none"
            )
            raise InputError(f"there is no source {source!r}: {names}") from None

    def _check(self, span: SpanRef) -> None:
        length = self.length(span.source)
        if not 0 <= span.start <= span.end <= length:
            raise InputError(
                f"{span.source} has {length:,} characters, so there is no span from {span.start:,} to {span.end:,}"
            )

    def _place(self, span: SpanRef) -> Place:
        self._check(span)
        place = self._open_places()[self._numbers[span.source]]
        return Place(place.run, place.start + span.start, place.start + span.end)

    def _origins_of(self, span: SpanRef) -> tuple[_Origin, ...]:
        """The parts of these characters that come from the root's document."""
        if self._origins is None:
            return (_Origin(0, span),)
        return tuple(
            cut
            for origin in self._origins[self._numbers[span.source]]
            if (cut := origin.within(span))
        )

    def _written(
        self, parts: Sequence[SpanRef | str], writer: Writer
    ) -> tuple[tuple[_Origin, ...], StoredText, str]:
        """The parts as one new text, with those of its parts that come from the root's document."""
        origins: list[_Origin] = []
        at = 0
        for part in parts:
            if isinstance(part, str):
                writer.append(part)
                at += len(part)
                continue
            for text in self._place(part).steps():
                writer.append(text)
            for origin in self._origins_of(part):
                moved = _Origin(at + origin.at, origin.span)
                joined = origins and origins[-1].followed_by(moved)
                if joined:
                    origins[-1] = joined
                else:
                    origins.append(moved)
            at += _length(part)
        return (tuple(origins), *writer.finish())


def _length(span: SpanRef) -> int:
    return span.end - span.start


def _source(
    number: int,
    place: Place,
    sha256: str,
    metadata: Mapping[str, Any] = _EMPTY,
    document_id: str | None = None,
    hidden: frozenset[str] = frozenset(),
) -> Source:
    maxchar = MAXCHARS[place.run.widest(place.start, place.end)]
    return Source(
        f"context_{number}", place.end - place.start, sha256, maxchar, metadata, document_id, hidden
    )


def _sha256(place: Place) -> str:
    digest = hashlib.sha256()
    for text in place.steps():
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
