"""How models are asked for the code of one run: in order, within bounds, and noted with the block
that asked.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rlm_integrations._concurrency.pool import pool
from rlm_integrations.engine.notebook import Notebook
from rlm_integrations.engine.tree import Tree
from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, new_id
from rlm_integrations.lm.base import LM
from rlm_integrations.records import CallRecord, LLMError, Message, Request
from rlm_integrations.result import SubCall

_GROUP = 2_000_000  # characters of prompts that are noted at once
_GROUPED = 500  # prompts that are noted at once, however short


def _as_it_is(item: Any) -> Any:
    return item


class SubCalls:
    """Asks models for one run's code.

    Args:
        tree: What the run shares with the others of its tree.
        query: The run's question.
        depth: The run's depth.
        parent: The id of the run in the events.

    Attributes:
        notebook: What the block that runs now has done.
        is_withdrawn: Whether the question was cancelled, and no further call is made while its
            block is being interrupted.
        closed: Why no model can be asked any more, or "".
        refused: Whether code asked one all the same.
    """

    def __init__(self, tree: Tree, *, query: str, depth: int, parent: str) -> None:
        self._tree = tree
        self._query = query
        self._depth = depth
        self._parent = parent
        self.notebook = Notebook(tree.record_room)
        self.is_withdrawn = False
        self.closed = ""
        self.refused = False

    async def ask_all(
        self,
        function: str,
        path: Callable[[int], str],
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
            function: What the code called.
            path: The place in the run of the call of each number.
            items: What the prompts are made of. A prompt is made when its turn comes, and again to
                be noted: never all of them at once.
            lm: The model.
            width: How many are asked at once.
            fill: Makes an item's prompt, or the `LLMError` that says why there is none; without it,
                items are prompts.
            tell: Called with each reply as it comes.
        """
        replies: list[str] = [""] * len(items)
        records: dict[int, CallRecord] = {}
        notebook, most = self.notebook, self._tree.settings.limits.prompt_chars
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
                records[number] = await self._ask(lm, prompt, path(number), parent)
                replies[number] = records[number].reply
                notebook.cut += getattr(replies[number], "truncated", False)
            tell(number, replies[number])
            progress(replies[number])

        width = min(width, max(1, len(items)))
        try:
            with self._batch_events(len(items), width) as (parent, progress):
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
                await notebook.note(
                    self._note_calls(notebook, function, path, items, make, records)
                )
        return replies

    async def _note_calls(
        self,
        notebook: Notebook,
        function: str,
        path: Callable[[int], str],
        items: Sequence[Any],
        fill: Callable[[Any], Any],
        records: dict[int, CallRecord],
    ) -> None:
        """Note calls a group at a time, so that not all prompts of templates are there at once."""
        numbers = deque(sorted(records))
        while numbers and not notebook.is_full:
            async with self._tree.noting:
                await self._note_group(notebook, function, path, items, fill, records, numbers)
        notebook.unrecorded += len(numbers)

    async def _note_group(
        self,
        notebook: Notebook,
        function: str,
        path: Callable[[int], str],
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
        located = await self._tree.pieces(made)
        for number, pieces in zip(group, located, strict=True):
            record = records[number]
            notebook.add(
                SubCall(
                    path=path(number),
                    function=function,
                    model=record.model,
                    prompt=pieces,
                    reply=record.reply,
                    depth=self._depth + 1,
                    start=self._tree.since(record.start),
                    end=self._tree.since(record.end),
                    wait=record.wait,
                    retries=record.retries,
                    usage=record.usage,
                    finish_reason=record.finish_reason,
                )
            )

    @contextmanager
    def _batch_events(self, total: int, width: int) -> Iterator[tuple[str, Callable[[str], None]]]:
        """The events of a batch: the parent of its calls, and what is to be told of each reply.

        A single call has the run as its parent.
        """
        emit, id_, done, failed = self._tree.emit, new_id("batch"), 0, 0
        outcome: Literal["completed", "cancelled"] = "cancelled"
        if total == 1:
            yield self._parent, lambda _reply: None
            return

        def progress(reply: str) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + isinstance(reply, LLMError)
            emit(BatchProgress(id=id_, parent=self._parent, done=done, total=total, failed=failed))

        emit(BatchStarted(id=id_, parent=self._parent, total=total, max_concurrent=width))
        try:
            yield id_, progress
            outcome = "completed"
        finally:
            emit(
                BatchFinished(
                    id=id_,
                    parent=self._parent,
                    done=done,
                    total=total,
                    failed=failed,
                    outcome=outcome,
                )
            )
            self._tree.forget(id_)

    async def _ask(self, lm: LM, prompt: str, path: str, parent: str) -> CallRecord:
        request = Request(
            (Message("user", prompt),),
            role="sub",
            query=self._query,
            path=path,
            depth=self._depth + 1,
        )
        if self.closed:
            self.refused = True
            return self._tree.refuse(lm, request, self.closed, parent=parent)
        if self.is_withdrawn:
            await asyncio.get_running_loop().create_future()  # until the block ends, which is soon
        return await self._tree.ask(lm, request, parent=parent)

    def note_batch(self, count: int, lm: LM, begun: float) -> None:
        """Note a batch that is done."""
        spent = time.monotonic() - begun
        self.notebook.batches.append(
            {"prompts_count": count, "model": lm.name, "execution_time": spent, "ts": time.time()}
        )


def refusal(prompt: Any, most: int) -> LLMError | None:
    """Why a prompt is not sent, in its slot."""
    if isinstance(prompt, LLMError):
        return prompt
    if not isinstance(prompt, str):
        return LLMError("input", f"a prompt must be a text, not {kind(prompt)}")
    if len(prompt) > most:
        return prompt_too_long(len(prompt), most)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        return LLMError(
            "input",
            f"the prompt holds half of a surrogate pair at {error.start}, which cannot be sent",
        )
    return None


def prompt_too_long(length: int, most: int) -> LLMError:
    """What stands in the slot of a prompt that is too long to be sent, or to be made."""
    return LLMError(
        "input", f"the prompt has {length:,} characters, and may have {most:,}: send a part of them"
    )


def kind(value: Any) -> str:
    """The kind of a value, as messages name it."""
    return getattr(value, "type", type(value).__name__) if not isinstance(value, str) else "a text"


def _cancelled(lm: LM, begun: float) -> CallRecord:
    return CallRecord(
        reply=LLMError("cancelled", "the block ended first"), model=lm.name, start=begun, end=begun
    )
