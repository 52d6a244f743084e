"""How models are asked for the code of one run: in order, within bounds, and noted with the block
that asked.
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
from rlm_integrations.engine.notebook import Notebook
from rlm_integrations.engine.tree import Tree
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.batch_report import BatchReport
from rlm_integrations.lm.prompts import unicode_error
from rlm_integrations.records import CallRecord, LLMError, Message, Request
from rlm_integrations.trajectory import SubCall

_GROUP = 2_000_000  # characters of prompts that are noted at once
_GROUPED = 500  # prompts that are noted at once, however short


def _as_it_is(item: Any) -> Any:
    return item


class SubCalls:
    """Asks models for the code of one run.

    Args:
        tree: What the run shares with the others of its tree.
        query: The run's question.
        depth: The run's depth.
        parent: The id of the run in the events.

    Attributes:
        is_withdrawn: Whether the question was cancelled: no further call is made while its block is
            being interrupted.
        on_missing: As of `Gate`.
        closed: Why no model can be asked any more, or "".
        refused: Whether code asked one nevertheless.
    """

    def __init__(self, tree: Tree, *, query: str, depth: int, parent: str) -> None:
        self._tree = tree
        self._query = query
        self._depth = depth
        self._parent = parent
        self.is_withdrawn = False
        self.on_missing: Callable[[CallId], None] | None = None
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
        tell: Callable[[int, str], None] = lambda _number, _reply: None,
    ) -> list[str]:
        """The replies to many prompts, in their order; one that cannot be sent is an `LLMError` in
        its slot.

        Args:
            call: The call of the code.
            ids: The identity of the model call for each number.
            items: What the prompts are made of. A prompt is made when its turn comes, and again to
                be noted: never all of them at once.
            lm: The model.
            width: How many are asked at once.
            fill: Makes an item's prompt, or the `LLMError` that takes its place; without it, items
                are prompts.
            tell: Called with each reply as it comes.
        """
        replies: list[str] = [""] * len(items)
        records: dict[int, CallRecord] = {}
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
                begun = time.monotonic()
                records[number] = _cancelled(lm, begun)  # unless it comes to an end by itself
                records[number] = await self._ask(lm, prompt, ids(number), parent)
                replies[number] = records[number].reply
                notebook.cut += getattr(replies[number], "truncated", False)
            tell(number, replies[number])
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
            if records:
                await notebook.note_to_the_end(self._note_calls(call, ids, items, make, records))
        return replies

    async def _note_calls(
        self,
        call: HostCall,
        ids: Callable[[int], CallId],
        items: Sequence[Any],
        fill: Callable[[Any], Any],
        records: dict[int, CallRecord],
    ) -> None:
        """Note calls a group at a time, so that not all prompts of templates are there at once."""
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
        while numbers and size < _GROUP:
            group.append(numbers.popleft())
            made.append(fill(items[group[-1]]))
            size += len(made[-1]) + _GROUP // _GROUPED
        located = await self._tree.locator.pieces(made)
        since = self._tree.clock.since
        for number, pieces in zip(group, located, strict=True):
            record = records[number]
            call.notebook.add(
                SubCall(
                    path=ids(number).path,
                    function=call.id.function,
                    model=record.model,
                    prompt=pieces,
                    reply=record.reply,
                    depth=self._depth + 1,
                    start=since(record.start),
                    end=since(record.end),
                    wait=record.wait,
                    retries=record.retries,
                    usage=record.usage,
                    finish_reason=record.finish_reason,
                )
            )

    @contextmanager
    def _reported(self, total: int, width: int) -> Iterator[tuple[str, Callable[[str], None]]]:
        """The parent of a batch's calls in the events, and what is called with each reply.

        A single call has the run as its parent.
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

    async def _ask(self, lm: LM, prompt: str, id_: CallId, parent: str) -> CallRecord:
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
        is_missing = self.on_missing is not None and self._tree.find(id_) is None
        if is_missing and self.on_missing is not None:
            self.on_missing(id_)
        if self.is_withdrawn or is_missing:
            await asyncio.get_running_loop().create_future()  # until the block ends, which is soon
        return await self._tree.models.ask(id_, lm, request, parent=parent)


def note_batch(notebook: Notebook, count: int, lm: LM, begun: float) -> None:
    """Note a batch that is done."""
    spent = time.monotonic() - begun
    notebook.batches.append(
        {"prompts_count": count, "model": lm.name, "execution_time": spent, "ts": time.time()}
    )


def refusal(prompt: Any, most: int) -> LLMError | None:
    """Why a prompt is not sent: the error in its slot."""
    if isinstance(prompt, LLMError):
        return prompt
    if not isinstance(prompt, str):
        return LLMError("input", f"a prompt must be a string, not {kind(prompt)}")
    if len(prompt) > most:
        return prompt_too_long(len(prompt), most)
    return unicode_error(prompt)


def prompt_too_long(length: int, most: int) -> LLMError:
    """The error in the slot of a prompt that is too long to be sent, or to be made."""
    return LLMError(
        "input", f"the prompt has {length:,} characters, and may have {most:,}: send a part of them"
    )


def _cancelled(lm: LM, begun: float) -> CallRecord:
    return CallRecord(
        reply=LLMError("cancelled", "the block ended first"), model=lm.name, start=begun, end=begun
    )
