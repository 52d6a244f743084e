"""A document with large folders, whose files are read when they are asked for.

A file's text is as it was when it was first read. Up to then only its size is known, in bytes.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, Final

from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.corpus.document_reader import DocumentReader
from rlm_integrations.corpus.documents import (
    check_encoding,
    check_text_name,
    documents,
    file_of,
    read_one,
)
from rlm_integrations.corpus.fixed_width import (
    AsciiFile,
    GrowingMemory,
    StoredText,
    Writer,
    no_room,
)
from rlm_integrations.corpus.folder import Folder, describe_left_out
from rlm_integrations.corpus.handover import Handover
from rlm_integrations.corpus.literals import FileSearch, Literals
from rlm_integrations.corpus.places import Place
from rlm_integrations.corpus.source import Source
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.extraction.extractor import Extractor

MAX_READ_FILES: Final = 1_000  # of a folder that is read at once
MAX_READ_BYTES: Final = 32_000_000
BATCH_CHARS: Final = 4_000_000  # of the texts of one answer, unless it is a single text
_UNREAD: Final = Place(StoredText(AsciiFile(Path(), ()), 0, 0, 1, b""), 0, 0)


@dataclass(frozen=True, slots=True)
class _Listing:
    """The files of a folder, which are sources from number `first` on."""

    first: int
    folder: Folder
    prefix: str
    root: str

    def path(self, number: int) -> str:
        return self.folder.files[number - self.first]

    def document(self, number: int) -> SourceDocument:
        return file_of(self.folder.root, self.path(number), self.prefix)


class LazyCorpus(Corpus):
    """A document by name, of which a file is read when its text is asked for; see `build_lazily`.

    The `length` of an element of `sources` is in bytes until it is read, and its `sha256` is empty.
    A file that turns out not to be text is then in `left_out`, and its text is empty. Threads may
    share it.
    """

    def __init__(self, encoding: str, errors: str) -> None:
        super().__init__((), (), is_list=True, is_named=True)
        self._read_numbers: list[int] = []
        self.left_out: dict[str, str] = {}
        self._own_sources: list[Source] = []
        self._own_places: list[Place] = []
        self.sources, self._places = self._own_sources, self._own_places
        self._encoding, self._errors = encoding, errors
        self._writer: Writer | None = Writer(GrowingMemory())
        self._listings: list[_Listing] = []
        self._unread: set[int] = set()
        self._reading = threading.RLock()
        self._read_chars = 0

    def add_folder(self, folder: Folder, prefix: str) -> None:
        """Add the files of a folder without reading them."""
        self.left_out.update((f"{prefix}{path}", why) for path, why in folder.left_out.items())
        first = len(self._own_sources)
        self._listings.append(_Listing(first, folder, prefix, str(folder.root)))
        for path in folder.files:
            name = f"{prefix}{path}" if prefix else path
            self._add(Source(name, folder.sizes[path], "", 127, {"file": name}, label=name))
        self._unread.update(range(first, len(self._own_sources)))

    def add(self, each_document: Iterable[SourceDocument]) -> None:
        """Read documents, and add them."""
        with self._reading, Extractor() as extractor:
            reader = self._reader(extractor)
            for document in each_document:
                found = read_one(document, reader, self.left_out)
                if found is not None:
                    number = len(self._own_sources)
                    self._add(Source(document.name or "", 0, "", 127, {}))
                    self._keep(number, *found)

    def _add(self, source: Source) -> None:
        if source.name in self._numbers:
            raise ContextError(f"two texts of the context have the name {source.name!r}")
        self._numbers[source.name] = len(self._own_sources)
        self._own_sources.append(source)
        self._own_places.append(_UNREAD)
        self.characters += source.length

    def close(self) -> None:
        """As `Corpus.close`."""
        super().close()
        self._own_places = []
        self._writer = None

    def _reader(self, extractor: Extractor) -> DocumentReader:
        if self._writer is None:
            raise ContextError("this corpus was closed: build it again")
        return DocumentReader(self._writer, extractor, self._encoding, self._errors)

    def _keep(self, number: int, document: SourceDocument, run: StoredText, sha256: str) -> None:
        place = Place(run, 0, run.length)
        source = document.source(number, place, sha256)
        self.characters += source.length - self._own_sources[number].length
        self._read_chars += source.length
        self._own_places[number], self._own_sources[number] = place, source
        self._read_numbers.append(number)

    def read(self, numbers: Iterable[int]) -> None:
        """Read these sources, unless they were read before. It blocks.

        Raises:
            ContextError: The corpus was closed, or a text does not fit into memory.
        """
        if not any(number in self._unread for number in numbers):
            return
        with self._reading, Extractor() as extractor:
            reader = self._reader(extractor)
            for number in numbers:
                if number in self._unread:
                    self._read(number, reader)

    def _read(self, number: int, reader: DocumentReader) -> None:
        listing = self._listing(number)
        document = listing.document(number)
        spend(self._own_sources[number].length)
        found = None
        try:
            if listing.folder.has(listing.path(number)):
                found = read_one(document, reader, self.left_out)
            else:
                self.left_out[document.name or ""] = "link out of the folder"
        except BaseException as error:
            reader.writer.finish()  # the next text begins after what was written
            if isinstance(error, OSError):
                raise no_room(error) from error
            raise
        self._keep(number, *(found or (document, *reader.writer.finish())))
        self._unread.discard(number)

    def _listing(self, number: int) -> _Listing:
        if len(self._listings) == 1:
            return self._listings[0]
        return self._listings[bisect_right(self._listings, number, key=_first) - 1]

    def read_all(self) -> None:
        """Read every source. It blocks."""
        self.read(range(len(self._own_sources)))

    def texts(
        self,
        runs: Sequence[Sequence[int]],
        literals: Sequence[str] | None = None,
        ignores_case: bool = False,
    ) -> tuple[int, list[tuple[int, str]], list[tuple[int, str]]]:
        """The texts of the first of these sources, up to about `BATCH_CHARS` characters. It blocks.

        Args:
            runs: The indexes of the sources, as runs: the first of each, and the one after its last.
            literals: Strings of which a text must have one, as far as a search of its bytes can
                tell; None for all texts.
            ignores_case: Whether ASCII letters of a text are compared in lower case.

        Returns:
            How many of them were looked at; the index and the text of each; and the index of
            each one that is left out, and why.

        Raises:
            InputError: There is no such source.
            ContextError: As `read`, or a file has changed since it was read.
        """
        found: list[tuple[int, str]] = []
        failed: list[tuple[int, str]] = []
        size = done = 0
        wanted = None if literals is None else Literals(tuple(literals), ignores_case)
        with FileSearch(wanted, self._encoding, self._errors) as search:
            for number in chain.from_iterable(range(first, stop) for first, stop in runs):
                if not 0 <= number < len(self._own_sources):
                    raise InputError(f"there is no source number {number}")
                if not self._may_match(number, search):
                    done += 1
                    continue
                if size > 0 and size + self._own_sources[number].length > BATCH_CHARS:
                    break
                done += 1
                self.read([number])
                source = self._own_sources[number]
                if source.name in self.left_out:
                    failed.append((number, self.left_out[source.name]))
                else:
                    found.append((number, self.text(source.name)))
                    size += source.length
        return done, found, failed

    def _may_match(self, number: int, search: FileSearch) -> bool:
        source = self._own_sources[number]
        spend(source.length)
        if number not in self._unread:
            return search.may_match_text(self.text(source.name))
        listing = self._listing(number)
        return search.may_match_file(listing.root, listing.path(number), source.length)

    # What differs from a document that was read at once

    def source(self, name: str) -> Source:
        """The properties of this source, which is read; see `Corpus.source`."""
        number = self.number(name)
        self.read([number])
        return self._own_sources[number]

    @property
    def read_numbers(self) -> Sequence[int]:
        """The indexes of the sources that were read, in the order of reading."""
        return self._read_numbers

    @property
    def characters_read(self) -> int:
        """How many characters they have."""
        return self._read_chars

    @property
    def sha256(self) -> str:
        """As `Corpus.sha256`, for which all is read."""
        self.read_all()
        return super().sha256

    @property
    def metadata(self) -> dict[str, Any]:
        """The REPL's `context_metadata`, in JSON's types. The size of a text is that of its file in
        bytes, or its length in characters if it was read.
        """
        return {
            "type": self.kind,
            "sizes": {source.name: source.length for source in self._own_sources},
            **describe_left_out(self.left_out),
        }

    def handover(self) -> Handover:
        """Of no text: each is sent when it is asked for."""
        return Handover((), is_list=True, _stores=())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """As `Corpus.__iter__`, for which all is read."""
        self.read_all()
        return super().__iter__()


def _first(listing: _Listing) -> int:
    return listing.first


def build_lazily(
    context: object, *, encoding: str = "utf-8", errors: str = "strict", least_bytes: int = 0
) -> Corpus:
    """The corpus of a context, as `Corpus.build` makes it. The files of a folder with more than
    `MAX_READ_FILES` files or `MAX_READ_BYTES` bytes are read when they are asked for, unless the
    context has data or documents of frameworks, too.

    Args:
        context: As for `Corpus.build`.
        encoding: The encoding of files.
        errors: How bytes that are invalid in it are handled.
        least_bytes: A folder with fewer bytes is read at once.

    Raises:
        ContextError: It cannot be read as text; the message says what to do.
    """
    check_encoding(encoding, errors)
    folders = {name: folder for name, item in _items(context) if (folder := _folder(item))}
    if not any(_is_large(each, least_bytes) for each in folders.values()) or not all(
        isinstance(item, str | PathLike | SourceDocument) for _, item in _items(context)
    ):
        return Corpus.build(context, encoding=encoding, errors=errors)
    corpus = LazyCorpus(encoding, errors)
    try:
        for name, item in _items(context):
            if (folder := folders.get(name)) is not None and _is_large(folder, least_bytes):
                if item is not context:
                    check_text_name(name)
                corpus.add_folder(folder, "" if item is context else f"{name}/")
            else:
                corpus.add(documents({name: item}, corpus.left_out)[0])
    except BaseException:
        corpus.close()
        raise
    return corpus


def _items(context: object) -> Iterable[tuple[Any, object]]:
    return context.items() if isinstance(context, Mapping) else [("", context)]


def _folder(item: object) -> Folder | None:
    return Folder.of(Path(fsdecode(item))) if isinstance(item, PathLike) else None


def _is_large(folder: Folder, least_bytes: int) -> bool:
    size = sum(folder.sizes.values())
    folder.check_size(size)
    return size >= least_bytes and (len(folder.files) > MAX_READ_FILES or size > MAX_READ_BYTES)
