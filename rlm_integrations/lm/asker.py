"""One way to ask a model: through its limiter, within a time, with further tries, with events.

For single calls and batches alike.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, fields, replace

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

# The types of `ModelError` by which a provider says that it has too much to do
REFUSALS = frozenset({"overloaded", "rate_limit"})

# Types of `ModelError` by the kind of further tries that `Retry` allows; all others are "failures".
_KINDS = {
    **dict.fromkeys(REFUSALS, "refusals"),
    "timeout": "timeouts",
    "bad_response": "replies",
    "empty": "replies",
}
_LARGE = 500_000  # characters of a reply from which looking at each would hold up the loop

# Of each wait over the one before: with two, the few calls that fail again and again would hold up
# the end of a batch
GROWTH = 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and for how long one call is tried again. Only failures that may pass are; between
    its tries a call is not in flight.

    Attributes:
        failures: Further tries after a failure of the server or the connection.
        replies: Further tries after a reply that cannot be used, such as one without content or
            half a JSON text. Each may have to be paid.
        refusals: Further tries after the provider said that it has too much to do (429, 503).
        timeouts: Further tries after no answer came in time.
        seconds: No further try begins so long after the first one began.
        first_delay: How many seconds the first wait takes at most; each wait for the same kind of
            failure takes 1.6 times as long as the one before. A random part of up to a half of it
            is left out. Where the provider says how long to wait, it is that at least.
        longest_delay: How many seconds a wait takes at most.
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
        """Seconds to wait before the next try after a failure of this kind, of which so many tries
        were made; None for no further one.
        """
        allowed: int = getattr(self, kind)
        if made >= allowed:
            return None
        return min(self.longest_delay, self.first_delay * GROWTH**made) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing


class ModelCaller:
    """Asks one model on behalf of one run or batch.

    Args:
        lm: The model.
        group: On whose behalf; between groups the limiter is fair. A new one by default.
        limiter: Its limiter; the process's own for this model by default.
        retry: When to try again.
        timeout: Seconds that one try may take once it has its turn, or None.
        emit: Takes the events.
        parent: The id in the events of what the calls are part of.
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
        self._group = object() if group is None else group
        self._limiter = limiter_of(lm) if limiter is None else limiter
        self._retry = retry or Retry()
        self._timeout = timeout
        self._emit = emit or Emitter()
        self._parent = parent
        self._version = self._limiter.version  # of the limiter, as last told

    async def ask(self, request: Request) -> CallRecord:
        """What became of the call; a failure is a value too.

        Only cancellation is raised, and no try follows it.
        """
        call = self._start(request)
        try:
            while True:
                result = await self._try(request, call)
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
                await asyncio.sleep(delay)
        except asyncio.CancelledError:
            self._end(call, LLMError("cancelled", "the caller gave up", call.retries))
            raise

    def fail(self, request: Request, error: LLMError) -> CallRecord:
        """The record of a call that cannot be made, with its events."""
        return self._end(self._start(request), error)

    async def _try(self, request: Request, call: "_PendingCall") -> Completion | ModelError:
        if (unprepared := await self._prepared()) is not None:
            return unprepared
        asked = time.monotonic()
        try:
            slot = await self._limiter.acquire(self._group, patience=self._retry.seconds)
        except ModelError as error:
            return error
        now = time.monotonic()
        call.waited += now - asked
        call.start = call.start or now
        self._tell()
        verdict: Verdict = "other"
        retry_after = None
        try:
            result = await self._complete(request)
            if isinstance(result, Completion):
                verdict = "answered"
            elif result.type in REFUSALS:
                verdict, retry_after = "refused", result.retry_after
            return result
        finally:
            self._limiter.release(slot, verdict, retry_after=retry_after)
            self._tell()

    async def _prepared(self) -> ModelError | None:
        """Let the model do what is not part of a call; what went wrong, if anything did."""
        try:
            if isinstance(self.lm, Prepared):
                await self.lm.prepare()
        except ModelError as error:
            return error
        except Exception as error:  # noqa: BLE001 - as for the call itself
            return ModelError(
                f"{self.lm.name} raised {type(error).__name__}: {error}", type="error"
            )
        return None

    async def _complete(self, request: Request) -> Completion | ModelError:
        """One answer.

        Whatever goes wrong in a model's own code becomes a value, because it concerns this one
        call.
        """
        name = self.lm.name
        try:
            async with asyncio.timeout(self._timeout):
                completion = await self.lm.complete(request)
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
        answer: object = completion  # a model of the user's may return anything
        if not isinstance(answer, Completion):
            return ModelError(
                f"{name} returned {type(answer).__name__}, not a Completion", type="error"
            )
        return await _checked(answer, request)

    def _delay(self, error: ModelError, call: "_PendingCall") -> float | None:
        kind = _KINDS.get(error.type, "failures")
        delay = self._retry.delay(kind, call.made[kind]) if error.retryable else None
        if delay is None:
            return None
        call.made[kind] += 1
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

    def _tell(self) -> None:
        """Say that the limiter changed, if it did since this was last said here."""
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
    """The answer as it may be handed on: text that can be sent again, and a count that can be true."""
    text = answer.text
    if not text.isascii():
        text = await offload(_valid, text) if len(text) > _LARGE else _valid(text)
    usage = credible(answer.usage, request, text)
    return (
        answer
        if text is answer.text and usage is answer.usage
        else replace(answer, text=text, usage=usage)
    )


def _valid(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair.

    Servers that cut tokens inside an emoji send halves.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _PendingCall:
    """What is known of a call that is not over."""

    __slots__ = ("id", "made", "retries", "start", "waited")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.made: Counter[str] = Counter()  # further tries by kind of failure
        self.retries = 0
        self.start = 0.0  # when the first try was sent
        self.waited = 0.0
