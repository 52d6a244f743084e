"""Calls a model through its limiter, with a timeout, retries and events.

Single calls and batches alike go through it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, fields, replace

from rlm_integrations._concurrency.deadlines import end_after, sleep
from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.events import (
    CallFailed,
    CallFinished,
    CallRetried,
    CallStarted,
    Emitter,
    LimiterChanged,
    new_id,
)
from rlm_integrations.lm.base import LM, Prepared
from rlm_integrations.lm.limiter import Limiter, Verdict, limiter_of
from rlm_integrations.lm.tokens import credible
from rlm_integrations.records import CallRecord, Completion, LLMError, LLMReply, Request

Complete = Callable[[Request], Awaitable[Completion]]

# The types of `ModelError` by which a provider reports overload
REFUSALS = frozenset({"overloaded", "rate_limit"})

# The field of `Retry` that counts for each type of `ModelError`; all others are "failures".
_RETRY_KINDS = {
    **dict.fromkeys(REFUSALS, "refusals"),
    "timeout": "timeouts",
    "bad_response": "replies",
    "empty": "replies",
}
_OFFLOAD_ABOVE_CHARS = 500_000  # of a reply: checking more would block the loop

# Factor between successive waits: with 2, the few calls that fail repeatedly would delay the end
# of a batch
GROWTH = 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When and how often a failed call is retried. Only retryable failures are; while it waits, a
    call holds no limiter slot.

    Attributes:
        failures: Retries after a failure of the server or the connection.
        replies: Retries after an unusable reply, such as one without content or with truncated
            JSON. Each may be charged.
        refusals: Retries after the provider reported overload (429, 503).
        timeouts: Retries after a timeout.
        seconds: No retry begins later than this after the first attempt began.
        first_delay: The longest first wait in seconds; each further wait for the same kind of
            failure is 1.6 times as long. A random part of up to half of it is subtracted. If the
            provider asks for a longer wait, that counts.
        longest_delay: The longest wait in seconds, unless the provider asks for more.
    """

    failures: int = 10
    replies: int = 2
    refusals: int = 20
    timeouts: int = 1
    seconds: float = 300.0
    first_delay: float = 0.05
    longest_delay: float = 10.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not (isinstance(value, int | float) and value >= 0):
                raise InputError(f"Retry({each.name}={value!r}): it must be a number of at least 0")
            if each.type is int and not isinstance(value, int):
                raise InputError(f"Retry({each.name}={value!r}): it must be an integer")

    def delay(self, kind: str, made: int) -> float | None:
        """Seconds to wait before the next retry after a failure of this kind, of which so many were
        made already; None for no further retry.
        """
        allowed: int = getattr(self, kind)
        if made >= allowed:
            return None
        # Spreads load, hides nothing
        return min(self.longest_delay, self.first_delay * GROWTH**made) * random.uniform(0.5, 1.0)  # noqa: S311


class ModelCaller:
    """Calls one model on behalf of one run or batch.

    Args:
        lm: The model.
        group: The run or batch; the limiter is fair between groups. A new one by default.
        limiter: Its limiter; by default the process's limiter of this model.
        retry: When to retry.
        timeout: Seconds that one attempt may take once it has a slot, or None.
        emit: Receives the events.
        parent: The parent's id in the events.
    """

    def __init__(
        self,
        lm: LM,
        *,
        group: Hashable = None,
        limiter: Limiter | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        emit: Emitter | None = None,
        parent: str | None = None,
    ) -> None:
        self.lm = lm
        # Checked once: comparing with a protocol takes microseconds
        self._prepare = lm.prepare if isinstance(lm, Prepared) else None
        self._group = object() if group is None else group
        self._limiter = limiter_of(lm) if limiter is None else limiter
        self._retry = retry or Retry()
        self._timeout = timeout
        self._emit = emit or Emitter()
        self._parent = parent
        self._version = self._limiter.version  # of the limiter, as last reported

    async def ask(self, request: Request, *, complete: Complete | None = None) -> CallRecord:
        """Make the call, and return its record; a failure is a value too.

        Only cancellation is raised, and ends the retries.

        Args:
            request: The request.
            complete: Makes each attempt; by default, `complete` of the model.
        """
        complete = complete or self.lm.complete
        call = self._start(request)
        try:
            while True:
                result = await self._attempt(request, call, complete)
                if isinstance(result, Completion):
                    return self._end(call, result)
                delay = self._delay(result, call)
                error = LLMError(result.type, str(result), call.retries + (delay is not None))
                if delay is None:
                    return self._end(call, error)
                call.retries += 1
                if self._emit:
                    self._emit(
                        CallRetried(id=call.id, parent=self._parent, error=error, delay=delay)
                    )
                await sleep(delay)
        except asyncio.CancelledError:
            self._end(call, LLMError("cancelled", "the caller was cancelled", call.retries))
            raise

    def fail(self, request: Request, error: LLMError) -> CallRecord:
        """The record of a call that cannot be made, with its events."""
        return self._end(self._start(request), error)

    async def _attempt(
        self, request: Request, call: "_PendingCall", complete: Complete
    ) -> Completion | ModelError:
        if self._prepare is not None and (error := await self._failure_of(self._prepare)):
            return error
        asked = time.monotonic()
        try:
            slot = await self._limiter.acquire(self._group, patience=self._retry.seconds)
        except ModelError as error:
            return error
        now = time.monotonic()
        call.waited += now - asked
        call.start = call.start or now
        self._report_limiter()
        verdict: Verdict = "other"
        retry_after = None
        try:
            result = await self._complete(request, complete)
            if isinstance(result, Completion):
                verdict = "answered"
            elif result.type in REFUSALS:
                verdict, retry_after = "refused", result.retry_after
            return result
        finally:
            self._limiter.release(slot, verdict, retry_after=retry_after)
            self._report_limiter()

    async def _failure_of(self, prepare: Callable[[], Awaitable[None]]) -> ModelError | None:
        """Let the model prepare itself outside of the call's time; the error, if that failed."""
        try:
            await prepare()
        except ModelError as error:
            return error
        except Exception as error:  # noqa: BLE001 - as in `_complete`
            return ModelError(
                f"{self.lm.name} raised {type(error).__name__}: {error}", type="error"
            )
        return None

    async def _complete(self, request: Request, complete: Complete) -> Completion | ModelError:
        """The completion, or the error of one attempt.

        Any exception raised by the model becomes a value, because it concerns this call only.
        """
        name = self.lm.name
        try:
            if self._timeout is None:
                completion = await complete(request)
            else:
                async with asyncio.timeout(None) as timeout:
                    end_after(timeout, self._timeout)
                    completion = await complete(request)
        except ModelError as error:
            return error
        except TimeoutError as error:
            in_time = f"within {self._timeout:g} s" if self._timeout else f"in time: {error}"
            return ModelError(f"{name} did not answer {in_time}", type="timeout", retryable=True)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return ModelError(f"{name} cancelled the call by itself", type="error", retryable=True)
        except Exception as error:  # noqa: BLE001 - one slot of a batch fails, not the batch
            return ModelError(f"{name} raised {type(error).__name__}: {error}", type="error")
        answer: object = completion  # a user's model may return anything
        if not isinstance(answer, Completion):
            return ModelError(
                f"{name} returned {type(answer).__name__}, not a Completion", type="error"
            )
        return await _checked(answer, request)

    def _delay(self, error: ModelError, call: "_PendingCall") -> float | None:
        kind = _RETRY_KINDS.get(error.type, "failures")
        made = call.made.get(kind, 0)
        delay = self._retry.delay(kind, made) if error.retryable else None
        if delay is None:
            return None
        call.made[kind] = made + 1
        delay = max(delay, error.retry_after or 0.0)
        return delay if time.monotonic() - call.start + delay < self._retry.seconds else None

    def _start(self, request: Request) -> "_PendingCall":
        call = _PendingCall(new_id("call") if self._emit else "")
        if self._emit:
            self._emit(
                CallStarted(id=call.id, parent=self._parent, model=self.lm.name, request=request)
            )
        return call

    def _end(self, call: "_PendingCall", result: Completion | LLMError) -> CallRecord:
        end = time.monotonic()
        answer = Completion(result) if isinstance(result, LLMError) else result
        record = CallRecord(
            reply=result
            if isinstance(result, LLMError)
            else LLMReply(answer.text, answer.finish_reason),
            model=answer.model or self.lm.name,
            usage=answer.usage,
            finish_reason=answer.finish_reason,
            retries=call.retries,
            wait=call.waited,
            start=call.start or end,
            end=end,
        )
        if self._emit:
            kind = CallFailed if isinstance(result, LLMError) else CallFinished
            self._emit(kind(id=call.id, parent=self._parent, at=end, record=record))
        return record

    def _report_limiter(self) -> None:
        """Emit the limiter's state, if it changed since the last report of this object."""
        if self._emit and self._limiter.version != self._version:
            self._version = self._limiter.version
            state = self._limiter.state()
            event = LimiterChanged(
                id=self._limiter.id,
                parent=self._parent,
                ceiling=state.ceiling,
                in_use=state.in_use,
                waiting=state.waiting,
                paused_until=state.paused_until,
                model=self.lm.name,
            )
            self._emit(event)


async def _checked(answer: Completion, request: Request) -> Completion:
    """The completion with text that can be encoded, and without implausible token counts."""
    text = answer.text
    if not text.isascii():
        text = (
            await offload(_valid_unicode, text)
            if len(text) > _OFFLOAD_ABOVE_CHARS
            else _valid_unicode(text)
        )
    usage = credible(answer.usage, request, text)
    return (
        answer
        if text is answer.text and usage is answer.usage
        else replace(answer, text=text, usage=usage)
    )


def _valid_unicode(text: str) -> str:
    """The text with U+FFFD for each lone surrogate.

    Servers that split tokens inside an emoji send lone surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _PendingCall:
    """The state of a call that is under way."""

    __slots__ = ("id", "made", "retries", "start", "waited")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.made: dict[str, int] = {}  # retries by kind of failure
        self.retries = 0
        self.start = 0.0  # when the first attempt began
        self.waited = 0.0
