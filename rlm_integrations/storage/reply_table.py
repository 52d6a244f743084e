"""Replies of models, kept across runs; see `lm.reply_cache`."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, delete, select

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations._json import read_record
from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.records import Completion
from rlm_integrations.storage.record_bodies import packed, unpacked
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert

logger = logging.getLogger("rlm_integrations")

_OFF_LOOP_CHARS = 20_000  # of a reply
_MAX_KEYS = 200  # of one query


class ReplyTable:
    """The replies of a storage, each with its key in its body: what is not whole is not used."""

    def __init__(self, shared: SharedDatabase) -> None:
        self._shared = shared
        self._table = shared.database.schema.replies
        self._lookups = WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookups]()
        self._insert = RawInsert(
            shared.database.dialect, self._table, ["reply_key", "body", "kept_at"], new_only=True
        )

    async def find(self, key: str) -> Completion | None:
        """The reply of this key, or None. A damaged one is removed, with a warning.

        Raises:
            StorageError: The database cannot be read.
        """
        loop = asyncio.get_running_loop()
        if (lookups := self._lookups.get(loop)) is None:
            lookups = self._lookups[loop] = _Lookups(self._find_all)
        return await lookups.find(key)

    def _find_all(self, keys: Sequence[str]) -> dict[str, Completion]:
        table = self._table
        query = select(table.c.reply_key, table.c.body).where(table.c.reply_key.in_(keys))
        rows = self._shared.database.read(lambda connection: connection.execute(query).all())
        found, damaged = {}, []
        for key, body in rows:
            try:
                found[key] = _decoded(unpacked(body, "a cached reply"), key)
            except (DamagedDataError, InputError) as error:
                logger.warning("a cached reply is not used, and the model is asked: %s", error)
                damaged.append(key)
        if damaged:
            remove = delete(table).where(table.c.reply_key.in_(damaged))
            self._shared.writer.submit(lambda connection: connection.execute(remove)).result()
        return found

    async def keep(self, key: str, completion: Completion) -> None:
        """Keep a reply, unless one of this key is kept already. Cancelling the wait does not stop
        the write.

        Raises:
            StorageError: It could not be kept.
        """
        is_short = len(completion.text) < _OFF_LOOP_CHARS
        body = (
            _encoded(key, completion)
            if is_short
            else await runtime.offload(_encoded, key, completion)
        )
        row = {"reply_key": key, "body": body, "kept_at": time.time()}
        await asyncio.shield(self._shared.writer.submit_here(None, {self._insert: [row]}))

    def clear(self, older_than: timedelta | None = None) -> int:
        """Remove all replies, or those that were kept longer ago than this; how many these were."""
        table = self._table
        wanted = delete(table)
        if older_than is not None:
            wanted = wanted.where(table.c.kept_at < time.time() - older_than.total_seconds())

        def remove(connection: Connection) -> int:
            return connection.execute(wanted).rowcount

        return self._shared.writer.submit(remove).result()


class _Lookups:
    """The lookups of one event loop. Those that come while others are read are read together.

    When none is under way, nothing here refers to the loop.
    """

    def __init__(self, read: Callable[[Sequence[str]], dict[str, Completion]]) -> None:
        self._read = read
        self._keys: list[str] = []
        self._next: asyncio.Task[dict[str, Completion]] | None = None  # will read these keys
        self._last: asyncio.Task[dict[str, Completion]] | None = None  # that was started

    async def find(self, key: str) -> Completion | None:
        """The reply of this key, or None."""
        if self._next is None or len(self._keys) == _MAX_KEYS:
            self._keys = []
            self._next = asyncio.create_task(self._look(self._keys, self._last))
            self._next.add_done_callback(_note_error)
            self._last = self._next
        self._keys.append(key)
        found = await asyncio.shield(self._next)  # others wait for it, too
        return found.get(key)

    async def _look(
        self, keys: list[str], before: "asyncio.Task[Any] | None"
    ) -> dict[str, Completion]:
        try:
            if before is not None:
                await asyncio.wait([before])
            if keys is self._keys:
                self._next = None
            return await in_thread(self._read, keys)
        finally:
            if self._last is asyncio.current_task():
                self._last = None
            if keys is self._keys:  # cancelled before its turn
                self._next = None


def _note_error(task: "asyncio.Task[Any]") -> None:
    """Read the error of a task whose callers may all have been cancelled."""
    if not task.cancelled():
        task.exception()


def _encoded(key: str, completion: Completion) -> bytes:
    plain = {"key": key, "completion": asdict(completion)}
    return packed(json.dumps(plain, separators=(",", ":")).encode())


def _decoded(body: bytes, key: str) -> Completion:
    """The reply.

    Raises:
        InputError: It is another one's, or not a reply.
    """
    try:
        plain: Any = json.loads(body)
    except ValueError as error:
        raise InputError(f"it is not JSON: {error}") from None
    if not isinstance(plain, Mapping) or plain.get("key") != key:
        raise InputError("it has another key")
    completion: Completion = read_record(Completion, plain.get("completion"), "completion")
    return completion
