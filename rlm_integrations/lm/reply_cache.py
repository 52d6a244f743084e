"""Replies that were paid for once, reused by later runs and batches.

A reply is kept under everything that determines it: the model with its address and its own
parameters, the messages, and the parameters of the request. Failed and truncated replies are not
kept.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from rlm_integrations._concurrency import runtime
from rlm_integrations.errors import InputError, StorageError
from rlm_integrations.events import CallCached, Emitter, new_id
from rlm_integrations.lm.asker import ModelCaller
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.prompts import digest_of_messages
from rlm_integrations.records import CallRecord, Completion, LLMReply, Message, Request, Usage

logger = logging.getLogger("rlm_integrations")

_VERSION: Final = 1  # of the keys
_OFF_LOOP_CHARS: Final = 1 << 18  # of a request


@runtime_checkable
class ReplyCache(Protocol):
    """Keeps replies across runs; `storage.Storage` is one."""

    async def find_reply(self, key: str) -> Completion | None:
        """The reply that was kept under this key, or None. A damaged one counts as missing."""
        ...

    async def keep_reply(self, key: str, completion: Completion) -> None:
        """Keep a reply; one that is kept under this key already stays."""
        ...


class CachedCalls:
    """What one run or batch reuses, and keeps.

    Equal requests of one run or batch are calls of their own, as voting needs: the second of them
    gets what the second one got before.

    Args:
        cache: The cache.
        emit: Receives an event for each reply from it.
    """

    def __init__(self, cache: ReplyCache, emit: Emitter) -> None:
        self._cache: ReplyCache | None = cache
        self._emit = emit
        self._asked: Counter[bytes] = Counter()

    async def ask(self, caller: ModelCaller, request: Request, *, parent: str) -> CallRecord:
        """The record of a call: from the cache, or made and kept."""
        key = self.key(caller.lm, request, await digest_prompt(request.messages))
        record = await self.find(caller.lm, request, key, parent=parent)
        if record is None:
            record = await caller.ask(request)
            await self.keep(key, record)
        return record

    def key(self, lm: LM, request: Request, prompt: bytes) -> str:
        """The key of the next call with this request; `prompt` is the digest of its messages."""
        request_key = _request_key(lm, request, prompt)
        self._asked[request_key] += 1
        return hashlib.sha256(b"%b %d" % (request_key, self._asked[request_key])).hexdigest()

    async def find(self, lm: LM, request: Request, key: str, *, parent: str) -> CallRecord | None:
        """The record of a call that the cache answers, or None."""
        if self._cache is None:
            return None
        try:
            found = await self._cache.find_reply(key)
        except StorageError as error:
            self._give_up(error)
            return None
        if found is None:
            return None
        now = time.monotonic()
        record = CallRecord(
            reply=LLMReply(found.text, found.finish_reason),
            model=found.model or lm.name,
            usage=Usage(),
            cost=0.0,
            finish_reason=found.finish_reason,
            start=now,
            end=now,
            saved=found.usage or Usage(),
        )
        if self._emit:
            self._emit(
                CallCached(
                    id=new_id("call"), parent=parent, model=lm.name, request=request, record=record
                )
            )
        return record

    async def keep(self, key: str, record: CallRecord) -> None:
        """Keep the reply of a call, if it was made now and is whole."""
        reply, is_hit = record.reply, record.saved is not None
        if self._cache is None or is_hit or not isinstance(reply, LLMReply) or reply.truncated:
            return
        completion = Completion(str(reply), record.usage, record.model, record.finish_reason)
        try:
            await self._cache.keep_reply(key, completion)
        except StorageError as error:
            self._give_up(error)

    def _give_up(self, error: StorageError) -> None:
        """Go on without the cache: it must not lose a reply that was paid for."""
        if self._cache is not None:
            self._cache = None
            logger.warning("the rest of this run is not cached: %s", error)


async def digest_prompt(messages: Sequence[Message]) -> bytes:
    """SHA-256 of messages; long ones are hashed off the event loop."""
    if sum(len(message.content) for message in messages) > _OFF_LOOP_CHARS:
        return await runtime.offload(digest_of_messages, messages)
    return digest_of_messages(messages)


def check_cacheable(lm: LM, request: Request = Request(())) -> None:  # noqa: B008 - it is immutable
    """Check that replies of this model to such requests can be cached.

    Raises:
        InputError: The model does not say what it is, or a parameter is not plain JSON.
    """
    if not callable(getattr(lm, "cache_identity", None)):
        raise InputError(
            f"replies of {lm.name!r} cannot be cached: {type(lm).__name__} has no method "
            "cache_identity(request), which returns what its replies depend on, without secrets"
        )
    try:
        _request_key(lm, request, b"")
    except (InputError, TypeError) as error:
        raise InputError(f"replies of {lm.name!r} cannot be cached: {error}") from None


def _request_key(lm: LM, request: Request, prompt: bytes) -> bytes:
    identity = lm.cache_identity(request)  # type: ignore[attr-defined] # see `check_cacheable`
    parts = [_VERSION, identity, dict(request.params)]
    if request.schema is not None:
        parts.append(dict(request.schema))
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode() + b"\n" + prompt).digest()
