"""What a run needs of a storage. The engine owns the protocol; `rlm_integrations.storage` has what
satisfies it.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rlm_integrations.corpus import Corpus
from rlm_integrations.run_setup import RunSetup
from rlm_integrations.store import SharedStore


class KeptRun(Protocol):
    """A run in a storage, which belongs to this process until it is finished or released.

    Attributes:
        run_id: Its id.
    """

    run_id: str

    def append(self, call: str, record: bytes, *, durable: bool = True) -> Awaitable[None]:
        """Begin to keep a record of the run's journal; it is safe when the awaitable is done. A
        task that awaits it and is cancelled meanwhile ends then.

        Args:
            call: The path of the call.
            record: The record.
            durable: Whether it must survive a power failure. A killed process never loses it.
        """
        ...

    async def finish(self, stop_reason: str, result: bytes) -> None:
        """Keep the result, which is JSON, and let go of the run.

        A run whose `stop_reason` is one of `run_setup.RESUMABLE` can be resumed.
        """
        ...

    async def release(self) -> None:
        """Let go of the run, if it was not finished."""
        ...


class StoredRun(Protocol):
    """A run that is going to be resumed, or replayed.

    Attributes:
        setup: What it was made with.
        corpus: Its document, or None if the storage does not keep documents.
        records: The records of its journal, in the order in which they were kept; none for a run
            that is to be resumed and has ended.
        result: The result of a run that has ended, as plain JSON; else None.
        kept: Where it goes on; None for a run that has ended.
    """

    @property
    def setup(self) -> RunSetup: ...  # noqa: D102 - the attributes are above
    @property
    def corpus(self) -> Corpus | None: ...  # noqa: D102
    @property
    def records(self) -> Sequence[bytes]: ...  # noqa: D102
    @property
    def result(self) -> Mapping[str, Any] | None: ...  # noqa: D102
    @property
    def kept(self) -> KeptRun | None: ...  # noqa: D102


@runtime_checkable
class RunStore(Protocol):
    """A store in a storage, which several runs may share.

    Attributes:
        name: Its name.
    """

    name: str

    def belongs_to(self, storage: object) -> bool:
        """Whether it is in the database of this storage."""
        ...

    def bind(self, corpus: Corpus) -> None:
        """Have it belong to a document, if it has none; blocks.

        Raises:
            InputError: It belongs to another document.
        """
        ...

    def for_run(
        self, run_id: str, corpus: Corpus, kept: KeptRun | None, max_bytes: int
    ) -> SharedStore:
        """The store as a run sees it, which may write so many bytes. A write of a call and the
        journal's record of the call are one unit.
        """
        ...


@runtime_checkable
class RunStorage(Protocol):
    """Keeps runs."""

    async def begin(self, run_id: str, setup: RunSetup, corpus: Corpus) -> KeptRun:
        """Keep a new run and its document.

        Raises:
            RunExistsError: There is a run of this id; of several processes that begin one at once,
                one does.
        """
        ...

    async def take(self, run_id: str) -> StoredRun:
        """A run to resume.

        Raises:
            InputError: No run has this id.
            StorageError: Another process has it.
        """
        ...

    async def past(self, run_id: str, records: int | None = None) -> StoredRun:
        """A run to replay: its records, and its result if it has one. Its document is not read.

        Args:
            run_id: The run.
            records: How many of its first records; None for all, of a run that no process has.

        Raises:
            InputError: No run has this id.
            StorageError: A process has it, or it cannot be read.
        """
        ...

    def document(self, run_id: str) -> Corpus | None:
        """The document of a run, or None if it was not kept. Blocks."""
        ...
