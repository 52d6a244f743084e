"""The journal of a run that a storage keeps."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations.engine.answer_codec import decode_answer, encode_answer
from rlm_integrations.engine.block_outcome import BlockOutcome
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.child_requests import ChildAnswer
from rlm_integrations.engine.journal import Answer, MemoryJournal
from rlm_integrations.engine.model_calls import ModelAnswer
from rlm_integrations.engine.run_storage import KeptRun

_OFF_LOOP_CHARS = 20_000  # of a reply; other answers may be of any size


class PastJournal(MemoryJournal):
    """The records of a run that were stored before; new ones stay in memory.

    Args:
        records: The records.

    Attributes:
        unused: The calls whose answers were not asked for yet.
        on_use: Called after each answer that was; None for nothing.
    """

    is_complete = True

    def __init__(self, records: Iterable[bytes]) -> None:
        super().__init__()
        self.answers.update(map(decode_answer, records))
        self.unused = set(self.answers)
        self.on_use: Callable[[], object] | None = None

    def find(self, call: CallId) -> Answer | None:
        """The stored answer of a call, or None."""
        answer = super().find(call)
        if answer is not None and self.on_use is not None:
            self.unused.discard(call)
            self.on_use()
        return answer

    @property
    def elapsed(self) -> float:
        """How many seconds the run had taken when its last record was kept."""
        ends = [0.0]
        for answer in self.answers.values():
            if isinstance(answer.value, ModelAnswer):
                ends.append(answer.value.record.end)
            elif isinstance(answer.value, ChildAnswer):
                ends.append(answer.value.end)
        return max(ends)


class StoredJournal(PastJournal):
    """The journal of a run in a storage. Records that were stored before are in memory, because a
    replay looks them up on the event loop; new ones are only stored.

    Args:
        kept: The run in the storage.
        records: The records that were kept before.

    Attributes:
        count: How many records the storage has.
    """

    def __init__(self, kept: KeptRun, records: Sequence[bytes] = ()) -> None:
        super().__init__(records)
        self.count = len(records)
        self._kept = kept

    def keep(self, call: CallId, answer: Answer) -> Awaitable[None]:
        """Begin to store an answer."""
        is_short = isinstance(answer.value, ModelAnswer) and (
            len(answer.value.record.reply) < _OFF_LOOP_CHARS
        )
        if is_short:
            return self._append(call, answer, encode_answer(call, answer))
        return finish_despite_cancel(self._keep_long(call, answer))

    async def _keep_long(self, call: CallId, answer: Answer) -> None:
        await self._append(call, answer, await runtime.offload(encode_answer, call, answer))

    def _append(self, call: CallId, answer: Answer, record: bytes) -> Awaitable[None]:
        self.count += 1
        # A block whose end is lost in a power failure runs again, with the answers of its calls
        is_paid = not isinstance(answer.value, BlockOutcome)
        return self._kept.append(call.path, record, durable=is_paid)
