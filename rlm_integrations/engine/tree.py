"""The objects that a run and its child runs share: models, budget, store, document and journal."""

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.budget import Purse
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.citations import VerifiedEvidence, verify_evidence
from rlm_integrations.engine.clock import RunClock
from rlm_integrations.engine.journal import Answer, Journal
from rlm_integrations.engine.locating import PromptLocator, RunLocator
from rlm_integrations.engine.model_calls import ModelCalls
from rlm_integrations.engine.notebook import RecordRoom
from rlm_integrations.engine.run_storage import KeptRun
from rlm_integrations.engine.settings import Settings
from rlm_integrations.engine.threads import TreeThreads
from rlm_integrations.events import Emitter
from rlm_integrations.records import SpanRef
from rlm_integrations.store import SharedStore

MAX_NOTING = 4  # concurrent groups of calls whose prompts are looked up in the document


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """The identity of a run, and the state to resume from.

    Attributes:
        run_id: Its id.
        clock: Its clock; a resumed run keeps its original start.
        journal: Its journal, from which recorded answers are replayed; None records nothing.
        kept: The stored run to which this journal belongs, if there is one.
    """

    run_id: str
    clock: RunClock = field(default_factory=RunClock)
    journal: Journal | None = None
    kept: KeptRun | None = None


class Tree:
    """One run and its child runs.

    Attributes:
        models: Makes all model calls.
        locator: Finds text of the document in prompts.
        threads: Read the document and the store.
        purse: The budget.
        store: The shared store, or None.
        kept: The stored run, or None.
        record_room: The remaining size of the record.
        filling: Limits the number of filled prompt templates in memory.
        noting: Limits the number of groups of calls that are recorded concurrently.
    """

    def __init__(self, settings: Settings, corpus: Corpus, start: RunStart, emit: Emitter) -> None:
        self.settings = settings
        self.corpus = corpus
        self.run_id = start.run_id
        self.clock = start.clock
        self.journal = start.journal
        self.kept = start.kept
        self.emit = emit
        self.store: SharedStore | None = None
        if settings.store is not None:
            most = settings.limits.store_bytes
            self.store = settings.store.for_run(start.run_id, corpus, start.kept, most)
        elif settings.store_mode != "none":
            self.store = SharedStore(corpus, max_size=settings.limits.store_bytes)
        self.purse = Purse(settings.budget, settings.limits.reply_tokens, self.clock.begun)
        self.models = ModelCalls(settings, self.purse, self.clock, self.run_id, emit, self.journal)
        self.record_room = RecordRoom(settings.limits.recorded_chars)
        self.threads = TreeThreads(settings.limits.query_chars)
        is_fine = settings.require_coverage is not None
        self.locator = PromptLocator(corpus, self.threads, is_fine=is_fine)
        self.filling = asyncio.Semaphore(settings.max_parallel_calls)
        self.noting = asyncio.Semaphore(MAX_NOTING)
        self._child_runs: dict[int, asyncio.Semaphore] = {}

    def child_run(self, depth: int) -> asyncio.Semaphore:
        """Limits the number of concurrent child runs of this depth.

        Each depth has its own limit, because parents wait for their children.
        """
        return self._child_runs.setdefault(
            depth, asyncio.Semaphore(self.settings.limits.child_runs)
        )

    def locator_of(self, corpus: Corpus) -> RunLocator:
        """Finds text of the document in the prompts of a run over this corpus."""
        return RunLocator(self.locator, corpus)

    async def restore_store(self) -> None:
        """Write the store events of the journal to the store, off the event loop."""
        if self.store is not None and self.journal is not None:
            await runtime.offload(_restore, self.store, self.journal)

    def find(self, call: CallId) -> Answer | None:
        """The answer of a call in the journal, or None."""
        return None if self.journal is None else self.journal.find(call)

    async def verify_evidence(
        self, evidence: Iterable[Any], corpus: Corpus, ambiguous: Collection[SpanRef] = ()
    ) -> VerifiedEvidence:
        """Verify evidence until the run's time limit; see `citations.verify_evidence`."""
        left = self.purse.seconds_left()
        until = None if left is None else time.monotonic() + left
        return await self.threads.free(
            verify_evidence, evidence, corpus, self.corpus, ambiguous, until=until
        )

    async def close(self) -> None:
        """Stop reading in threads, and release the document's index."""
        self.threads.close()
        await self.locator.close()


def _restore(store: SharedStore, journal: Journal) -> None:
    store.backend.restore(journal.store_events())
