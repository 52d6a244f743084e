"""The model calls of one run's code: concurrent within limits, in order, and recorded with the
calling block.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlm_integrations._concurrency.pool import pool
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.gate import HostCall
from rlm_integrations.engine.host.arguments import kind
from rlm_integrations.engine.locating import RunLocator
from rlm_integrations.engine.notebook import Notebook
from rlm_integrations.engine.tree import Tree
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.batch_report import BatchReport
from rlm_integrations.lm.prompts import unicode_error
from rlm_integrations.records import CallRecord, LLMError, Message, Request
from rlm_integrations.trajectory import SubCall, call_fields

_MAX_GROUP_CHARS = 2_000_000  # characters of prompts that are recorded together
_MAX_GROUP_PROMPTS = 500  # the maximum of prompts that are recorded together


def _as_it_is(item: Any) -> Any:
    return item


class SubCalls:
    """Makes the model calls of one run's code.

    Args:
        tree: The objects that all runs of the tree share.
        locator: Finds text of the document in the run's prompts.
        query: The run's question.
        depth: The run's depth.
        parent: The id of the run in the events.

    Attributes:
        locator: As given.
        is_withdrawn: Whether the question was cancelled. No further call is made while its block is
            being interrupted.
        closed: The reason why models cannot be called any more, or "".
        refused: Whether code tried to call a model after that.
    """

    def __init__(
        self, tree: Tree, locator: RunLocator, *, query: str, depth: int, parent: str
    ) -> None:
        self.locator = locator
        self._tree = tree
        self._query = query
        self._depth = depth
        self._parent = parent
        self.is_withdrawn = False
        self.closed = ""
        self.refused = False

    async def ask_one(self, call: HostCall, id_: CallId, prompt: Any, lm: LM) -> str:
        """The reply to one prompt; see `ask_all`."""
        return (await self.ask_all(call, lambda _number: id_, [prompt], lm, 1))[0]

    async def ask_all(
        self,
        call: HostCall,
        ids: Callable[[int], CallId],
        items: Sequence[Any],
        lm: LM,
        width: int,
        *,
        fill: Callable[[Any], Any] | None = None,
        on_reply: Callable[[int, str], None] = lambda _number, _reply: None,
    ) -> list[str]:
        """The replies to many prompts, in their order. A prompt that cannot be sent has an
        `LLMError` in its slot.

        Args:
            call: The call of the code.
            ids: Returns the identity of each model call by its number.
            items: The prompts, or the values that `fill` makes them from. A prompt is made just
                before its call, and again for the record: never all of them together.
            lm: The model.
            width: The maximum of concurrent calls.
            fill: Makes the prompt of an item, or an `LLMError`; by default, items are prompts.
            on_reply: Called with the number and the text of each reply.
        """
        replies: list[str] = [""] * len(items)
        records: dict[int, CallRecord] = {}
        under_way: dict[int, float] = {}  # when each call began
        notebook, most = call.notebook, self._tree.settings.limits.prompt_chars
        make = fill or _as_it_is

        async def one(number: int, item: Any) -> None:
            if fill is None:
                await ask(number, item)
            else:
                async with self._tree.filling:
                    await ask(number, fill(item))

        async def ask(number: int, prompt: Any) -> None:
            refused = refusal(prompt, most)
            if refused is not None:
                replies[number] = refused
            else:
                under_way[number] = time.monotonic()
                record = await self._ask(call, lm, prompt, ids(number), parent)
                del under_way[number]
                records[number] = record
                replies[number] = record.reply
                notebook.cut += getattr(record.reply, "truncated", False)
            on_reply(number, replies[number])
            progress(replies[number])

        width = min(width, max(1, len(items)))
        try:
            with self._reported(len(items), width) as (parent, progress):
                await pool(items, one, width)
        except asyncio.CancelledError:
            room = most
            for number in [number for number, record in records.items() if record.error is None]:
                prompt, reply = make(items[number]), records[number].reply
                room -= len(prompt) + len(reply)
                if room < 0:
                    break
                notebook.unfinished[prompt] = reply
            raise
        finally:
            for number, begun in under_way.items():
                records[number] = _cancelled(lm, begun)
            if records:
                await notebook.note_despite_cancel(
                    self._note_calls(call, ids, items, make, records)
                )
        return replies

    async def _note_calls(
        self,
        call: HostCall,
        ids: Callable[[int], CallId],
        items: Sequence[Any],
        fill: Callable[[Any], Any],
        records: dict[int, CallRecord],
    ) -> None:
        """Record calls in groups, so that the prompts of templates do not all exist together."""
        numbers = deque(sorted(records))
        while numbers and not call.notebook.is_full:
            async with self._tree.noting:
                await self._note_group(call, ids, items, fill, records, numbers)
        call.notebook.unrecorded += len(numbers)

    async def _note_group(
        self,
        call: HostCall,
        ids: Callable[[int], CallId],
        items: Sequence[Any],
        fill: Callable[[Any], Any],
        records: dict[int, CallRecord],
        numbers: deque[int],
    ) -> None:
        group: list[int] = []
        made: list[str] = []
        size = 0
        while numbers and size < _MAX_GROUP_CHARS:
            group.append(numbers.popleft())
            made.append(fill(items[group[-1]]))
            size += len(made[-1]) + _MAX_GROUP_CHARS // _MAX_GROUP_PROMPTS
        located = await self.locator.pieces(made)
        since = self._tree.clock.since
        for number, pieces in zip(group, located, strict=True):
            record = records[number]
            call.notebook.add(
                SubCall(
                    path=ids(number).path,
                    function=call.id.function,
                    prompt=pieces,
                    reply=record.reply,
                    depth=self._depth + 1,
                    start=since(record.start),
                    end=since(record.end),
                    **call_fields(record),
                )
            )

    @contextmanager
    def _reported(self, total: int, width: int) -> Iterator[tuple[str, Callable[[str], None]]]:
        """Report a batch in the events: the parent of its calls, and a function to call with each
        reply. The parent of a single call is the run.
        """
        if total == 1:
            yield self._parent, lambda _reply: None
            return
        report = BatchReport(
            self._tree.emit, parent=self._parent, total=total, max_concurrent=width
        )
        report.start()
        try:
            yield report.id, lambda reply: report.note(is_failed=isinstance(reply, LLMError))
            report.outcome = "completed"
        finally:
            report.finish()
            self._tree.models.forget(report.id)

    async def _ask(
        self, call: HostCall, lm: LM, prompt: str, id_: CallId, parent: str
    ) -> CallRecord:
        request = Request(
            (Message("user", prompt),),
            role="sub",
            query=self._query,
            path=id_.path,
            depth=self._depth + 1,
        )
        if self.closed:
            self.refused = True
            return self._tree.models.refuse(lm, request, self.closed, parent=parent)
        if self._tree.journal is not None:
            await call.wait_if_missing(id_)
        if self.is_withdrawn:
            await asyncio.get_running_loop().create_future()  # until the block ends, soon
        return await self._tree.models.ask(id_, lm, request, parent=parent)


def note_batch(notebook: Notebook, count: int, lm: LM, begun: float) -> None:
    """Record a finished batch."""
    spent = time.monotonic() - begun
    notebook.batches.append(
        {"prompts_count": count, "model": lm.name, "execution_time": spent, "ts": time.time()}
    )


def refusal(prompt: Any, most: int) -> LLMError | None:
    """The error of a prompt that cannot be sent, or None."""
    if isinstance(prompt, LLMError):
        return prompt
    if not isinstance(prompt, str):
        return LLMError("input", f"a prompt must be a string, not {kind(prompt)}")
    if len(prompt) > most:
        return prompt_too_long(len(prompt), most)
    return unicode_error(prompt)


def prompt_too_long(length: int, most: int) -> LLMError:
    """The error of a prompt that is too long."""
    return LLMError(
        "input",
        f"the prompt has {length:,} characters; the maximum is {most:,}: send a part of it",
    )


def _cancelled(lm: LM, begun: float) -> CallRecord:
    return CallRecord(
        reply=LLMError("cancelled", "the block ended first"), model=lm.name, start=begun, end=begun
    )
