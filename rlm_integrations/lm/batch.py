"""Many prompts to one model, a few at a time: an answer or a typed error for each, in order or as
they complete.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from dataclasses import replace
from functools import partial
from typing import Any

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations._concurrency.pool import pool
from rlm_integrations._concurrency.portal import iterating, pulled_by_caller, synchronous
from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import check_count
from rlm_integrations.events import BatchProgress, Emitter, Event, Hook
from rlm_integrations.lm import pricing
from rlm_integrations.lm.asker import ModelCaller, Retry
from rlm_integrations.lm.batch_options import (
    BatchOptions,
    OnProgress,
    check_option,
    check_source,
    check_timeout,
)
from rlm_integrations.lm.batch_report import BatchReport
from rlm_integrations.lm.prompts import checked_template, digest_of_messages, filled, messages_of
from rlm_integrations.lm.reply_cache import CachedCalls, ReplyCache, check_cacheable
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.progress_bar import Bar
from rlm_integrations.records import CallRecord, LLMError, Message, Request, Usage

PromptInput = str | Sequence[Message | Mapping[str, str]]
_Numbered = tuple[int, CallRecord]


async def allm_batch(
    prompts: Iterable[PromptInput] | AsyncIterable[PromptInput],
    llm: object,
    *,
    max_concurrent: int = 10,
    timeout: float | None = None,  # noqa: ASYNC109 - of each call, not of the batch
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    dedupe: bool = False,
    cache: ReplyCache | None = None,
    params: Mapping[str, Any] | None = None,
    retry: Retry | None = None,
    on_event: Hook | None = None,
) -> list[str]:
    """The model's replies, in the order of the prompts. A call that failed leaves an `LLMError` in
    its place, and the others continue.

    Args:
        prompts: A list, or any other iterable or async iterable, pulled as calls complete. A prompt
            is a string, or a list of `Message`s or {"role": …, "content": …} dicts. An invalid
            prompt gets an `LLMError` of type "input"; an `LLMError` from an earlier batch stays as
            it is.
        llm: A model's name, or a model.
        max_concurrent: How many calls of this batch may be in flight. The model's limiter may allow
            fewer at times.
        timeout: Seconds that one attempt of a call may take.
        show_progress: Whether to show a progress bar while stderr is a terminal, or in a notebook.
        on_progress: Called with how many prompts are done, how many there are (None if
            unknown), and how many of them failed.
        dedupe: Whether identical prompts share one call. By default each is a separate call, as
            voting needs.
        cache: A `storage.Storage`: replies that it has cost nothing, new ones are kept for later
            batches and runs. The second of identical prompts gets what the second one got before.
        params: Parameters of every call, by the provider's names, such as {"temperature": 0}.
        retry: When failed calls are retried.
        on_event: Receives the batch's events.

    Raises:
        InputError: An argument is invalid.
        Exception: Raised by the iterable of prompts; calls under way are finished first.
    """
    options = BatchOptions(
        max_concurrent=max_concurrent, timeout=timeout, show_progress=show_progress,
        on_progress=on_progress, dedupe=dedupe, cache=cache, params=params,
        retry=retry, on_event=on_event,
    )  # fmt: skip
    return [record.reply for record in await _Batch(prompts, llm, options).records()]


def allm_batch_iter(
    prompts: Iterable[PromptInput] | AsyncIterable[PromptInput],
    llm: object,
    *,
    max_concurrent: int = 10,
    timeout: float | None = None,
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    dedupe: bool = False,
    cache: ReplyCache | None = None,
    params: Mapping[str, Any] | None = None,
    retry: Retry | None = None,
    on_event: Hook | None = None,
) -> AsyncGenerator[tuple[int, str], None]:
    """Each prompt's number and the reply to it, as they complete; otherwise like `allm_batch`,
    whose options these are.

    Prompts are pulled as replies are consumed, so memory stays bounded. Closing the iterator early
    cancels the calls under way.
    """
    options = BatchOptions(
        max_concurrent=max_concurrent, timeout=timeout, show_progress=show_progress,
        on_progress=on_progress, dedupe=dedupe, cache=cache, params=params,
        retry=retry, on_event=on_event,
    )  # fmt: skip
    return _Batch(prompts, llm, options).replies()


async def allm_batch_records(
    prompts: Iterable[PromptInput] | AsyncIterable[PromptInput],
    llm: object,
    *,
    max_concurrent: int = 10,
    timeout: float | None = None,  # noqa: ASYNC109 - of each call, not of the batch
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    dedupe: bool = False,
    cache: ReplyCache | None = None,
    params: Mapping[str, Any] | None = None,
    retry: Retry | None = None,
    on_event: Hook | None = None,
) -> list[CallRecord]:
    """The record of each call, in the order of the prompts: reply, model, usage, cost, retries,
    times.

    The options are those of `allm_batch`. A `cost` is in US dollars, and None ("unknown") for a
    model without a known price. With `dedupe`, the record of a repeated prompt has the reply, and
    counts no tokens and no cost; so does that of a reply from the cache, which has `saved`.
    """
    options = BatchOptions(
        max_concurrent=max_concurrent, timeout=timeout, show_progress=show_progress,
        on_progress=on_progress, dedupe=dedupe, cache=cache, params=params,
        retry=retry, on_event=on_event,
    )  # fmt: skip
    return await _Batch(prompts, llm, options, priced=True).records()


async def aparallel_query(
    template: str,
    chunks: Iterable[str] | AsyncIterable[str],
    llm: object,
    *,
    max_concurrent: int = 10,
    timeout: float | None = None,  # noqa: ASYNC109 - of each call, not of the batch
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    dedupe: bool = False,
    cache: ReplyCache | None = None,
    params: Mapping[str, Any] | None = None,
    retry: Retry | None = None,
    on_event: Hook | None = None,
) -> list[str]:
    """The model's replies to a template filled with each chunk, in the order of the chunks.

    The template is a string with {chunk}, which each chunk replaces; all other text stays as it is,
    including other braces and those of a chunk. The options are those of `allm_batch`.
    """
    options = BatchOptions(
        max_concurrent=max_concurrent, timeout=timeout, show_progress=show_progress,
        on_progress=on_progress, dedupe=dedupe, cache=cache, params=params,
        retry=retry, on_event=on_event,
    )  # fmt: skip
    prepare = partial(filled, checked_template(template))
    return [
        record.reply for record in await _Batch(chunks, llm, options, prepare=prepare).records()
    ]


llm_batch = synchronous(allm_batch)
llm_batch_iter = iterating(allm_batch_iter)
llm_batch_records = synchronous(allm_batch_records)
parallel_query = synchronous(aparallel_query)


class _Batch:
    """One batch, from its arguments to its end.

    Args:
        source: The prompts, or the items that `prepare` turns into prompts.
        llm: The model.
        options: As for `allm_batch`.
        prepare: Turns one item into a conversation, or into the error that takes its place.
        priced: Whether to look up what each call cost.
    """

    def __init__(
        self,
        source: Iterable[Any] | AsyncIterable[Any],
        llm: object,
        options: BatchOptions,
        *,
        prepare: Callable[[Any], tuple[Message, ...] | LLMError] = messages_of,
        priced: bool = False,
    ) -> None:
        self._source = check_source(source)
        self._llm = llm
        self._prepare = prepare
        self._priced = priced
        self._concurrent = check_count("max_concurrent", options.get("max_concurrent", 10))
        self._timeout = check_timeout(options.get("timeout"))
        self._retry = check_option("retry", options.get("retry"), Retry)
        self._params = check_option("params", options.get("params"), Mapping) or {}
        self._asked: dict[bytes, CallRecord | list[int]] | None = (
            {} if options.get("dedupe") else None
        )
        self._total = len(source) if isinstance(source, Sized) else None
        # None at the end
        self._ready: asyncio.Queue[_Numbered | None] = asyncio.Queue(self._concurrent)
        self._task: asyncio.Task[None]
        self._emit = Emitter(check_option("on_event", options.get("on_event"), Callable))
        bar = Bar("prompts") if options.get("show_progress") else None
        on_progress = check_option("on_progress", options.get("on_progress"), Callable)
        report = None if on_progress is None else partial(_report, on_progress)
        self._report = BatchReport(
            Emitter(self._emit or None, bar, report),
            parent=None,
            total=self._total,
            max_concurrent=self._concurrent,
        )
        self._calls = Emitter(self._emit or None, bar)
        cache = check_option("cache", options.get("cache"), ReplyCache)
        self._cache = None if cache is None else CachedCalls(cache, self._calls)

    async def records(self) -> list[CallRecord]:
        """All records, in the order of the prompts."""
        records: dict[int, CallRecord] = {}
        await self._open()
        try:
            while group := await self._next():
                records.update(group)
        finally:
            await self._close()
        return [records[index] for index in range(len(records))]

    async def replies(self) -> AsyncGenerator[tuple[int, str], None]:
        """Numbered replies as they complete."""
        # The only generator here: at a loop's end asyncio closes all open generators, and fails on
        # those that close others.
        await self._open()
        try:
            while group := await self._next():
                for index, record in group:
                    yield index, record.reply
        finally:
            await self._close()

    async def _open(self) -> None:
        lm = await offload(resolve, self._llm) if isinstance(self._llm, str) else resolve(self._llm)
        if self._cache is not None:
            check_cacheable(lm, Request((), self._params))
        if self._priced:
            await pricing.prepare()
        asker = ModelCaller(
            lm, timeout=self._timeout, retry=self._retry, emit=self._calls, parent=self._report.id
        )
        self._report.start()
        self._task = asyncio.create_task(self._run(asker))

    async def _next(self) -> list[_Numbered]:
        """The records that are ready, at least one; an empty list at the end."""
        group = [await self._ready.get()]
        while not self._ready.empty():
            group.append(self._ready.get_nowait())
        found = [each for each in group if each is not None]
        if not found:
            self._report.outcome = "failed"
            await self._task
            self._report.outcome = "completed"
        elif group[-1] is None:
            self._ready.put_nowait(None)  # for the next call
        return found

    async def _close(self) -> None:
        self._task.cancel()
        try:
            await wait_until_done(self._task)
        finally:
            self._report.finish()

    async def _run(self, asker: ModelCaller) -> None:
        # A list is read on this loop. Any other iterable may run the user's code.
        source = (
            self._source
            if isinstance(self._source, Sequence | AsyncIterable)
            else pulled_by_caller(self._source)
        )
        workers = self._concurrent if self._total is None else min(self._concurrent, self._total)
        try:
            await pool(source, partial(self._work, asker), workers)
        except Exception:
            await self._ready.put(None)
            raise
        await self._ready.put(None)

    async def _work(self, asker: ModelCaller, index: int, item: Any) -> None:
        messages = self._prepare(item)
        if isinstance(messages, LLMError):
            await self._deliver(index, asker.fail(Request((), path=_path(index)), messages))
        elif self._asked is None:
            await self._deliver(index, await self._ask(asker, index, messages))
        elif (known := self._asked.get(key := digest_of_messages(messages))) is None:
            same = self._asked[key] = []
            record = self._asked[key] = await self._ask(asker, index, messages)
            await self._deliver(index, record)
            for each in same:
                await self._deliver(each, _reused(record))
        elif isinstance(known, list):
            known.append(index)  # delivered together with the call under way
        else:
            await self._deliver(index, _reused(known))

    async def _ask(
        self, asker: ModelCaller, index: int, messages: tuple[Message, ...]
    ) -> CallRecord:
        request = Request(messages, self._params, path=_path(index))
        record = await (
            asker.ask(request)
            if self._cache is None
            else self._cache.ask(asker, request, parent=self._report.id)
        )
        if self._priced and record.usage is not None and record.cost is None:
            base_url = getattr(asker.lm, "base_url", None)
            record = replace(
                record,
                cost=pricing.call_cost(
                    record.usage, asker.lm.name, record.model, base_url=base_url
                ),
            )
        return record

    async def _deliver(self, index: int, record: CallRecord) -> None:
        self._report.note(is_failed=record.error is not None)
        await self._ready.put((index, record))


def _path(index: int) -> str:
    """The path of a prompt's call, as traces show it."""
    return f"b.{index}"


def _reused(record: CallRecord) -> CallRecord:
    """The record of a prompt that reuses the reply to an identical one."""
    return replace(record, usage=Usage(), cost=0.0, retries=0, wait=0.0)


def _report(on_progress: OnProgress, event: Event) -> None:
    if isinstance(event, BatchProgress):
        on_progress(event.done, event.total, event.failed)
