"""The document on the host: named sources, counted, hashed and read in slices.

Offsets are characters (code points) within one source; line ends are unchanged. A source is stored
at fixed width in one sealed memory file, into which files are decoded in steps. ASCII files beyond
64 MB are read from the disk: if one changes later, reads raise `ContextError`.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Self, TypeVar

from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus.document_reader import DocumentReader
from rlm_integrations.corpus.documents import check_encoding, documents, read_all
from rlm_integrations.corpus.fixed_width import Memory, StoredText, Writer
from rlm_integrations.corpus.folder import count_reasons, describe_left_out
from rlm_integrations.corpus.handover import Handover
from rlm_integrations.corpus.origins import OriginsBuilder, SpanOrigin, length_of
from rlm_integrations.corpus.places import Place, read_short
from rlm_integrations.corpus.source import Source
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.extraction.extractor import Extractor, TextCache
from rlm_integrations.records import SpanRef

T = TypeVar("T")


class Corpus:
    """A string, a list of strings, or strings by name, stored once and read in slices.

    `Corpus.build` creates it, and `slice` that of a child run. Threads may share it; a child may
    outlive its parent.

    Attributes:
        sources: The properties of each source, in order.
        is_list: Whether the context has several texts, not a single string.
        is_named: Whether its texts have names; it is then a mapping in the REPL.
        left_out: The files of folders that are not in it, by name, and why.
        characters: How many characters all sources have.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        places: Sequence[Place],
        *,
        is_list: bool,
        is_named: bool = False,
        left_out: Mapping[str, str] = MappingProxyType({}),
        origins: Sequence[tuple[SpanOrigin, ...]] | None = None,
        root: "Corpus | None" = None,
    ) -> None:
        self.sources: Sequence[Source] = tuple(sources)
        self.is_list = is_list
        self.is_named = is_named
        self.left_out = left_out
        self._numbers = {source.name: number for number, source in enumerate(self.sources)}
        if is_named:
            for number in range(len(self.sources)):
                self._numbers.setdefault(f"context_{number}", number)
        self._places: Sequence[Place] | None = places
        self._origins = origins  # None for the root, whose spans need no lifting
        self._root = root
        self.characters = sum(source.length for source in self.sources)
        self._kept: dict[str, Any] = {}
        self._keeping = threading.RLock()

    @classmethod
    def build(
        cls,
        context: object,
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        left_out: Mapping[str, str] = MappingProxyType({}),
        texts: TextCache | None = None,
    ) -> Self:
        """The corpus of a string, a path, a document of LangChain or LlamaIndex, an iterable or a
        mapping of these, or a folder.

        It blocks, and holds the GIL for less than a millisecond at a time: run it off the event
        loop.

        Args:
            context: The string, path or document, or an iterable or a mapping of these.
            encoding: The encoding of files.
            errors: How bytes that are invalid in it are handled, as in `bytes.decode`.
            left_out: Files that are left out already; see the attribute.
            texts: Keeps the texts of PDF files and the like for later.

        Raises:
            ContextError: It cannot be read as text; the message says what to do.
        """
        check_encoding(encoding, errors)
        not_text = dict(left_out)
        each_document, is_list = documents(context, not_text)
        is_named = False
        sources: list[Source] = []
        places = []
        with Memory() as memory, Extractor(texts) as extractor:
            reader = DocumentReader(Writer(memory), extractor, encoding, errors)
            for document, run, sha256 in read_all(each_document, reader, not_text):
                places.append(Place(run, 0, run.length))
                sources.append(document.source(len(sources), places[-1], sha256))
                is_named = is_named or document.name is not None
        if not_text and not sources:
            raise ContextError(f"no file of the context is text: {count_reasons(not_text)}")
        return cls(sources, places, is_list=is_list, is_named=is_named, left_out=not_text)

    def slice(
        self,
        parts: Sequence[SpanRef | str | Sequence[SpanRef | str]],
        *,
        is_list: bool = True,
        names: Sequence[str] | None = None,
    ) -> "Corpus":
        """A child corpus with one source for each part, by name if there are names.

        A span is shared, not copied. A string is written, and so is a sequence of spans and strings
        that make one source together. Every part is read once for its hash: run it off the event
        loop.

        Raises:
            InputError: A span is outside its source.
        """
        if not is_list and len(parts) != 1:
            raise InputError(f"a single source needs exactly one part, not {len(parts)}")
        sources, places, origins = [], [], []
        with Memory() as memory:
            writer = Writer(memory)
            for number, part in enumerate(parts):
                name = f"context_{number}" if names is None else names[number]
                if isinstance(part, SpanRef):
                    place, parent = self._place(part), self.source(part.source)
                    is_whole = place.end - place.start == parent.length
                    sha256 = parent.sha256 if is_whole else place.sha256()
                    source = parent.cut(name, place, sha256)
                    origins.append(self._origins_of(part))
                else:
                    made_of, run, sha256 = self._written(
                        [part] if isinstance(part, str) else part, writer
                    )
                    place = Place(run, 0, run.length)
                    source = Source.of_place(number, place, sha256, name=name)
                    origins.append(made_of)
                sources.append(source)
                places.append(place)
        root = self if self._root is None else self._root
        is_named = names is not None
        return Corpus(
            sources, places, is_list=is_list, is_named=is_named, origins=origins, root=root
        )

    def parts(self) -> "tuple[Corpus, list[SpanRef | str | list[SpanRef | str]]] | None":
        """For a child corpus: the root, and the parts of which its `slice` makes an equal one. None
        for the root. Blocks.

        Raises:
            ContextError: As `text`.
        """
        if self._root is None or self._origins is None:
            return None
        root = self._root
        return root, [
            self._part(root, source, origins)
            for source, origins in zip(self.sources, self._origins, strict=True)
        ]

    def _part(
        self, root: "Corpus", source: Source, origins: tuple[SpanOrigin, ...]
    ) -> SpanRef | str | list[SpanRef | str]:
        if len(origins) == 1 and length_of(origins[0].span) == source.length:
            span = origins[0].span
            # A span as a part has its source's metadata; in a sequence it has none
            return span if root.source(span.source).metadata == source.metadata else [span]
        parts: list[SpanRef | str] = []
        at = 0
        for origin in origins:
            if at < origin.at:
                parts.append(self.text(source.name, at, origin.at))
            parts.append(origin.span)
            at = origin.at + length_of(origin.span)
        if at < source.length or not parts:
            parts.append(self.text(source.name, at))
        return parts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the text. Its memory is freed when no child, handover or read in another thread
        uses it any more.
        """
        self._places = None
        self._kept = {}

    def __repr__(self) -> str:
        return f"<Corpus of {len(self.sources)} sources, {self.characters:,} characters>"

    def kept(self, key: str, make: "Callable[[Corpus], T]") -> T:
        """A value that is computed once from this corpus and kept until it is closed, for all runs.
        It blocks.

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
        """The hash of its content: its kind, and the hashes of its sources in order, with their
        names if they are named, without metadata.
        """
        names = (f" {each.name}" if self.is_named else "" for each in self.sources)
        lines = (f"{each.sha256}{name}\n" for each, name in zip(self.sources, names, strict=True))
        return hashlib.sha256(f"{self.kind}\n{''.join(lines)}".encode()).hexdigest()

    @property
    def kind(self) -> Literal["text", "list of texts", "texts by name", "data"]:
        """What `context` is in the REPL."""
        if not self.is_list and self.sources[0].is_object:
            return "data"
        return "texts by name" if self.is_named else "list of texts" if self.is_list else "text"

    @property
    def root_spans(self) -> tuple[SpanRef, ...] | None:
        """The parts of the root's document that this corpus has, or None for the root's own."""
        if self._origins is None:
            return None
        return tuple(origin.span for origins in self._origins for origin in origins)

    @property
    def metadata(self) -> dict[str, Any]:
        """The REPL's `context_metadata`, in JSON's types."""
        return {
            "type": self.kind,
            "characters": self.characters,
            "sources": [source.described for source in self.sources],
            **describe_left_out(self.left_out),
        }

    def length(self, source: str) -> int:
        """How many characters this source has.

        Raises:
            InputError: The source does not exist.
        """
        return self.source(source).length

    def source(self, name: str) -> Source:
        """The properties of this source.

        Raises:
            InputError: The source does not exist.
        """
        return self.sources[self.number(name)]

    def text(self, source: str, start: int = 0, end: int | None = None) -> str:
        """The characters of a source from `start` up to `end`, at a cost that depends only on their
        number.

        For many megabytes iterate, or use the handover: this method briefly holds the text twice.

        Raises:
            InputError: The source or the place does not exist.
            ContextError: Its file has changed, or the corpus was closed.
        """
        place = self._place(SpanRef(source, start, self.length(source) if end is None else end))
        spend(place.end - place.start)
        return place.run.read(place.start, place.end)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every source's name with its text, in steps: a long text yields several pairs, an empty
        one yields none.
        """
        for name, place in self._texts():
            for piece in place.steps():
                yield name, piece

    def short_texts(
        self, most: int, numbers: Iterable[int] | None = None
    ) -> Iterator[tuple[str, str | None]]:
        """The name of every source that was read, in order, with its text, or None if it has more
        than `most` characters; or of the sources with these indexes.

        Raises:
            ContextError: As `text`.
        """
        return read_short(self._texts(numbers), most)

    def lift(self, span: SpanRef) -> SpanRef | None:
        """This span in the root's document, or None if it contains other text.

        Raises:
            InputError: The source or the place does not exist.
        """
        self._check(span)
        if self._origins is None:
            return replace(span, source=self.source(span.source).name)
        origins = self._origins_of(span)
        return (
            origins[0].span
            if len(origins) == 1 and length_of(origins[0].span) == length_of(span)
            else None
        )

    @property
    def read_numbers(self) -> Sequence[int]:
        """The indexes of the sources that were read, in the order of reading: here all."""
        return range(len(self.sources))

    @property
    def characters_read(self) -> int:
        """How many characters they have: so many are read by a search of the document."""
        return self.characters

    def _texts(self, numbers: Iterable[int] | None = None) -> Iterator[tuple[str, Place]]:
        places = self._open_places()
        chosen = sorted(self.read_numbers) if numbers is None else numbers
        return ((self.sources[number].name, places[number]) for number in chosen)

    def handover(self) -> Handover:
        """The places of the sources, and the descriptors to send to another process."""
        return Handover.of_places(self.sources, self._open_places(), is_list=self.is_list)

    def _open_places(self) -> Sequence[Place]:
        places = self._places
        if places is None:
            raise ContextError("this corpus was closed: build it again")
        return places

    def number(self, source: str) -> int:
        """The index of this source in `sources`.

        Raises:
            InputError: The source does not exist.
        """
        try:
            return self._numbers[source]
        except KeyError:
            names = (
                f"there are {self.sources[0].name} to {self.sources[-1].name}"
                if self.sources
                else "the context is empty"
            )
            raise InputError(f"there is no source {source!r}: {names}") from None

    def _check(self, span: SpanRef) -> None:
        length = self.length(span.source)
        if not 0 <= span.start <= span.end <= length:
            raise InputError(
                f"{span.source} has {length:,} characters, so there is no span from"
                f" {span.start:,} to {span.end:,}"
            )

    def _place(self, span: SpanRef) -> Place:
        self._check(span)
        place = self._open_places()[self._numbers[span.source]]
        return Place(place.run, place.start + span.start, place.start + span.end)

    def _origins_of(self, span: SpanRef) -> tuple[SpanOrigin, ...]:
        """The parts of these characters that come from the root's document."""
        if self._origins is None:
            return (SpanOrigin(0, replace(span, source=self.source(span.source).name)),)
        return tuple(
            cut
            for origin in self._origins[self._numbers[span.source]]
            if (cut := origin.within(span))
        )

    def _written(
        self, parts: Sequence[SpanRef | str], writer: Writer
    ) -> tuple[tuple[SpanOrigin, ...], StoredText, str]:
        """The parts as one new text, with those that come from the root's document."""
        origins = OriginsBuilder()
        for part in parts:
            if isinstance(part, str):
                writer.append(part)
                origins.append(len(part))
                continue
            for text in self._place(part).steps():
                writer.append(text)
            origins.append(length_of(part), self._origins_of(part))
        return (origins.finish(), *writer.finish())
