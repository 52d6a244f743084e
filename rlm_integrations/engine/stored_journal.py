"""The journal of a run that a storage keeps."""

from collections.abc import Iterable

from rlm_integrations._concurrency import runtime
from rlm_integrations.engine.answer_codec import decode_answer, encode_answer
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.child_requests import ChildAnswer
from rlm_integrations.engine.journal import Answer, MemoryJournal
from rlm_integrations.engine.model_calls import ModelAnswer
from rlm_integrations.engine.run_storage import KeptRun

_OFF_LOOP_CHARS = 20_000  # of a reply; other answers may be of any size


class StoredJournal(MemoryJournal):
    """The journal of a run in a storage. Records that were stored before are in memory, because a
    replay looks them up on the event loop; new ones are only stored.

    Args:
        kept: The run in the storage.
        records: The records that were kept before.
    """

    is_complete = True

    def __init__(self, kept: KeptRun, records: Iterable[bytes] = ()) -> None:
        super().__init__()
        self._kept = kept
        self.answers.update(map(decode_answer, records))

    async def keep(self, call: CallId, answer: Answer) -> None:
        """Store an answer."""
        is_short = isinstance(answer.value, ModelAnswer) and (
            len(answer.value.record.reply) < _OFF_LOOP_CHARS
        )
        record = (
            encode_answer(call, answer)
            if is_short
            else await runtime.offload(encode_answer, call, answer)
        )
        await self._kept.append(call.path, record)

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
