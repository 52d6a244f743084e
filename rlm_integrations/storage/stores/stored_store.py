"""A store in a storage, as users have it."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol, Self

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError, quote_value
from rlm_integrations.storage.event_feed import follow
from rlm_integrations.storage.owned_run import OwnedRun
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.stores.sql_backend import SqlBackend
from rlm_integrations.store import SharedStore
from rlm_integrations.store.reader import StoreReader

MAX_BYTES: Final = 1 << 40  # of the events of one store
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Opener(Protocol):
    def store(self, name: str) -> "StoredStore": ...


class StoredStore(SharedStore):
    """A store that outlives its runs, in a storage: `storage.store(name)`.

    It has all methods of a `SharedStore`. Any number of processes may write to it; each sees what
    the others have written. A write is on the disk when it returns, so writes take milliseconds: do
    not call them, or reads, on an event loop.

    A store belongs to one document, that of the first run that uses it: spans point into it. In a
    run, names of workers and ids begin with the run's id.

    Args:
        storage: The storage.
        shared: Its database.
        backend: The objects.

    Attributes:
        name: Its name.
    """

    def __init__(self, storage: _Opener, shared: SharedDatabase, backend: SqlBackend) -> None:
        StoreReader.__init__(self, backend)
        self.name = backend.name
        self._storage = storage
        self._shared = shared
        self._sql = backend

    def __repr__(self) -> str:
        return f"<StoredStore {self.name!r}>"

    def with_document(
        self, context: object, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> Self:
        """The same store with its document, so that `trace` shows the words of spans.

        Args:
            context: The document of its runs, in any form that `RLM.completion` takes.
            encoding: As in `Limits`.
            errors: As `Limits.decode_errors`.

        Raises:
            ContextError: The context cannot be read.
            InputError: The store belongs to another document.
        """
        corpus = (
            context
            if isinstance(context, Corpus)
            else Corpus.build(context, encoding=encoding, errors=errors)
        )
        self._sql.bind(corpus.sha256)
        return self._over(self._sql.with_corpus(corpus))

    # For the engine; see `engine.run_storage.RunStore`.

    def belongs_to(self, storage: object) -> bool:
        """Whether it is in the database of this storage."""
        # All storages of one URL in a process share it
        return getattr(storage, "_shared", None) is self._shared

    def bind(self, corpus: Corpus) -> None:
        """Have it belong to a document, if it has none; blocks.

        Raises:
            InputError: It belongs to another document.
        """
        self._sql.bind(corpus.sha256)

    def for_run(self, run_id: str, corpus: Corpus, kept: object, max_bytes: int) -> Self:
        """The store as a run sees it: names of its workers begin with the run's id, so that runs
        never share an id, and records of its calls are kept in one unit with their events.
        """
        keep = kept.append_in if isinstance(kept, OwnedRun) else None
        same = self._over(self._sql.for_run(corpus, keep, max_bytes))
        same._namespace = run_id.replace("/", ".")  # noqa: SLF001 - of this class
        return same

    def _over(self, backend: SqlBackend) -> Self:
        return type(self)(self._storage, self._shared, backend)

    async def follow(self, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """The events after a number, as of `events_since`, then each further one as any process
        commits it. It never ends by itself.
        """
        async for event in follow(self._sql.page, self._shared.database, after):
            yield event.brief()

    def to_dict(self) -> dict[str, Any]:
        """The store's name: `storage.store(name)` opens it again."""
        return {"stored": self.name}

    def __copy__(self) -> Self:
        """Itself: it is shared."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself, as above."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """The storage and the name: the object in another process opens the same store."""
        return _reopened, (self._storage, self.name)


def _reopened(storage: _Opener, name: str) -> StoredStore:
    return storage.store(name)


def open_store(storage: _Opener, shared: SharedDatabase, name: object) -> StoredStore:
    """The store of this name in a storage.

    Raises:
        InputError: The name is invalid.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            "a store's name must be 1 to 64 letters, digits, dots, dashes and underscores, not "
            f"{quote_value(name)}"
        )
    return StoredStore(storage, shared, SqlBackend(shared, name, max_size=MAX_BYTES))
