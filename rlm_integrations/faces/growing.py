"""A document that grows: what an agent's window cannot hold, kept whole, and still askable.

Texts are only added. Each has an id, by which it is read, searched and cited, for as long as the
document exists.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any, Final, Protocol

from rlm_integrations import RLM, Corpus, RLMResult
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.runtime import close_apart
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.added_source import AddedSource, label_of, number_in, source_identity
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import InputError

MAX_ASKED_CHARS: Final = 200_000_000  # of one question: they are in memory twice
_SLICE_CHARS: Final = 1 << 20  # searched at once: a few milliseconds
_AROUND_CHARS: Final = 80  # shown before and after a match
_MAX_MATCH_CHARS: Final = 500  # a longer match may be missed between two slices
_MAX_PATTERN_CHARS: Final = 500
_MAX_IDS: Final = 1_000  # of one call
_SHOWN_IDS: Final = 20  # in an error


class SourceLog(Protocol):
    """Where the texts of one document are. All methods block; threads may share it."""

    def add(self, label: str, text: str, key: str, metadata: Mapping[str, Any]) -> AddedSource:
        """Add a text. The same label, key and text again is the same source, not another one."""
        ...

    def sources(self, numbers: Sequence[int] | None = None) -> list[AddedSource]:
        """The texts in the order in which they were added; or those with these numbers."""
        ...

    def size(self) -> tuple[int, int]:
        """How many texts there are, and how many characters."""
        ...

    def text(self, source: AddedSource) -> str:
        """The text of a source."""
        ...

    def forget(self) -> int:
        """Remove everything; returns how many texts there were."""
        ...


class LocalSources:
    """Texts in this process, compressed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, AddedSource] = {}
        self._texts: dict[int, bytes] = {}
        self._last = 0

    def add(self, label: str, text: str, key: str, metadata: Mapping[str, Any]) -> AddedSource:
        """Add a text."""
        data = text.encode("utf-8", "surrogatepass")
        hashed = sha256(data).hexdigest()
        identity = source_identity(label, key, hashed)
        with self._lock:
            if identity in self._known:
                return self._known[identity]
        kept = zlib.compress(data, 1)
        with self._lock:
            if identity not in self._known:  # else another thread was quicker
                self._last += 1
                self._texts[self._last] = kept
                self._known[identity] = AddedSource(
                    number=self._last,
                    label=label,
                    characters=len(text),
                    sha256=hashed,
                    metadata=dict(metadata),
                )
            return self._known[identity]

    def sources(self, numbers: Sequence[int] | None = None) -> list[AddedSource]:
        """The texts in order, or those with these numbers."""
        with self._lock:
            known = list(self._known.values())
        return [each for each in known if numbers is None or each.number in numbers]

    def size(self) -> tuple[int, int]:
        """How many texts there are, and how many characters."""
        known = self.sources()
        return len(known), sum(each.characters for each in known)

    def text(self, source: AddedSource) -> str:
        """The text of a source."""
        with self._lock:
            kept = self._texts.get(source.number)
        if kept is None:
            raise InputError(f"{source.id} was removed")
        return zlib.decompress(kept).decode("utf-8", "surrogatepass")

    def forget(self) -> int:
        """Remove everything; returns how many texts there were."""
        with self._lock:
            count = len(self._known)
            self._known, self._texts = {}, {}
        return count


@dataclass(frozen=True, slots=True)
class Match:
    """A place that a search found.

    Attributes:
        source: The text.
        start: Where the match begins, in characters.
        end: Where it ends.
        around: The match with what stands before and after it, on one line.
    """

    source: AddedSource
    start: int
    end: int
    around: str


class GrowingDocument:
    """A document to which texts are added, and which is searched, read and asked.

    Its methods run on the caller's event loop and block it at no time; for synchronous code, run
    them through the portal.

    Args:
        log: Where the texts are.
    """

    def __init__(self, log: SourceLog) -> None:
        self._log = log

    async def add(
        self, name: str, text: str, *, key: str = "", metadata: Mapping[str, Any] | None = None
    ) -> AddedSource:
        """Add a text, and return it with its id once it is kept.

        Args:
            name: What the text is, such as the name of a tool: the beginning of its id.
            text: The text.
            key: What tells it from the same text under the same name, such as the id of a call.
                Adding a text again, after a crash for example, has no effect.
            metadata: What is known about it, in JSON's types. Models that are asked see it, except
                keys that begin with an underscore.
        """
        return await in_thread(self._log.add, label_of(name), text, key, metadata or {})

    async def size(self) -> tuple[int, int]:
        """How many texts there are, and how many characters."""
        return await in_thread(self._log.size)

    async def sources(self, ids: Sequence[str] | None = None) -> list[AddedSource]:
        """The texts with these ids, or all, in the order in which they were added.

        Raises:
            InputError: An id does not exist.
        """
        return await in_thread(self._sources, ids)

    async def search(
        self, pattern: str, ids: Sequence[str] | None = None, *, limit: int = 20
    ) -> tuple[list[Match], bool]:
        """The places where words stand, in the newest texts first, without a model.

        Upper and lower case and all white space are the same. The pattern is no regular expression:
        one of a model could take for ever. `a|b` finds either.

        Args:
            pattern: The words.
            ids: The texts to search; by default all.
            limit: How many matches at most.

        Returns:
            The matches, and whether there are more.

        Raises:
            InputError: The pattern is empty or too long, or an id does not exist.
        """
        return await in_thread(self._search, pattern, ids, limit)

    async def read(self, source_id: str, start: int, end: int) -> tuple[AddedSource, str]:
        """A text, and its characters from `start` up to `end`; fewer at its end.

        Raises:
            InputError: The id does not exist.
        """
        return await in_thread(self._read, source_id, start, end)

    async def corpus(self, ids: Sequence[str] | None = None) -> Corpus:
        """The texts with these ids, or all, as the context of a run; the caller closes it.

        Raises:
            InputError: There are none, an id does not exist, or they are too large together.
        """
        return await in_thread(self._corpus, ids)

    async def ask(
        self, rlm: RLM[Any], question: str, ids: Sequence[str] | None = None
    ) -> RLMResult[Any]:
        """The result of a run over the texts with these ids, or all. Its citations are places in
        these texts: `citation.source` is an id.

        Raises:
            InputError: As `corpus`.
            RLMError: As `RLM.acompletion`.
        """
        corpus = await self.corpus(ids)
        try:
            return await rlm.acompletion(question, corpus)
        finally:
            await finish_despite_cancel(close_apart(corpus.close))

    async def forget(self) -> int:
        """Remove everything; returns how many texts there were."""
        return await in_thread(self._log.forget)

    def _sources(self, ids: Sequence[str] | None) -> list[AddedSource]:
        if ids is None:
            return self._log.sources()
        if len(ids) > _MAX_IDS:
            raise InputError(f"{len(ids):,} ids: name at most {_MAX_IDS:,}")
        numbers = {id_: number_in(id_) for id_ in ids}
        found = self._log.sources([each for each in numbers.values() if each is not None])
        if missing := numbers.keys() - {each.id for each in found}:
            known = [each.id for each in self._log.sources()]
            shown = ", ".join(known[-_SHOWN_IDS:]) or "none"
            raise InputError(
                f"there is no {', '.join(map(repr, sorted(missing)[:_SHOWN_IDS]))}: there are "
                f"{len(known):,} texts, the latest {shown}"
            )
        return found

    def _search(
        self, pattern: str, ids: Sequence[str] | None, limit: int
    ) -> tuple[list[Match], bool]:
        wanted = _compiled(pattern)
        matches: list[Match] = []
        for source in reversed(self._sources(ids)):
            for match in _matches(source, self._log.text(source), wanted):
                if len(matches) == limit:
                    return matches, True
                matches.append(match)
        return matches, False

    def _read(self, source_id: str, start: int, end: int) -> tuple[AddedSource, str]:
        (source,) = self._sources([source_id])
        return source, self._log.text(source)[max(start, 0) : max(end, 0)]

    def _corpus(self, ids: Sequence[str] | None) -> Corpus:
        found = self._sources(ids)
        if not found:
            raise InputError("nothing was added yet")
        characters = sum(each.characters for each in found)
        if characters > MAX_ASKED_CHARS:
            raise InputError(
                f"these {len(found):,} texts have {characters:,} characters, and a question may be "
                f"over {MAX_ASKED_CHARS:,}: name some of them by their ids, which a search finds"
            )
        return Corpus.build(self._documents(found))

    def _documents(self, sources: Sequence[AddedSource]) -> Iterator[SourceDocument]:
        for each in sources:
            yield SourceDocument(
                self._log.text(each),
                dict(each.metadata),
                hidden=frozenset(key for key in each.metadata if key.startswith("_")),
                name=each.id,
                label=each.id,
            )


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > _MAX_PATTERN_CHARS:
        raise InputError(f"the pattern has more than {_MAX_PATTERN_CHARS} characters")
    choices = [each.split() for each in pattern.split("|")]
    words = [r"\s+".join(map(re.escape, each)) for each in choices if each]
    if not words:
        raise InputError("the pattern is empty: give words that the text contains")
    return re.compile("|".join(words), re.IGNORECASE)


def _matches(source: AddedSource, text: str, wanted: re.Pattern[str]) -> Iterator[Match]:
    """The matches in a text, which is searched in overlapping slices: `re` lets no other thread run
    meanwhile.
    """
    at = 0
    for begin in range(0, len(text), _SLICE_CHARS):
        end = begin + _SLICE_CHARS
        for found in wanted.finditer(text, max(begin, at), end + _MAX_MATCH_CHARS):
            if found.start() >= end:
                break
            at = found.end()
            around = text[max(found.start() - _AROUND_CHARS, 0) : found.end() + _AROUND_CHARS]
            yield Match(source, found.start(), found.end(), " ".join(around.split()))


class GrowingDocuments:
    """A growing document for each conversation.

    Args:
        storage: Where they are; by default in this process, the latest `most` of them.
        most: How many this process has without a storage; the one that was not used for the longest
            time is removed first.
    """

    def __init__(self, storage: "SourceStorage | None" = None, *, most: int = 1_000) -> None:
        self._storage = storage
        self._most = most
        self._lock = Lock()
        self._local: dict[str, LocalSources] = {}

    def of(self, thread_id: str) -> GrowingDocument:
        """The document of a conversation, which is empty at first."""
        if self._storage is not None:
            return GrowingDocument(self._storage.sources(thread_id))
        with self._lock:
            log = self._local.pop(thread_id, None) or LocalSources()
            self._local[thread_id] = log  # the last one is the latest
            while len(self._local) > self._most:
                del self._local[next(iter(self._local))]
        return GrowingDocument(log)

    async def forget(self, thread_id: str) -> int:
        """Remove the document of a conversation; returns how many texts it had."""
        document = self.of(thread_id)
        with self._lock:
            self._local.pop(thread_id, None)
        return await document.forget()


class SourceStorage(Protocol):
    """What a storage needs for documents that grow; `storage.Storage` has it."""

    def sources(self, name: str) -> SourceLog:
        """The document of this name."""
        ...
