"""Replies of models, kept across runs; see `lm.reply_cache`."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

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


class ReplyTable:
    """The replies of a storage, each with its key in its body: what is not whole is not used."""

    def __init__(self, shared: SharedDatabase) -> None:
        self._shared = shared
        self._table = shared.database.schema.replies
        self._insert = RawInsert(
            shared.database.dialect, self._table, ["reply_key", "body", "kept_at"], new_only=True
        )

    async def find(self, key: str) -> Completion | None:
        """The reply of this key, or None. A damaged one is removed, with a warning.

        Raises:
            StorageError: The database cannot be read.
        """
        return await in_thread(self._find, key)

    def _find(self, key: str) -> Completion | None:
        table = self._table
        query = select(table.c.body).where(table.c.reply_key == key)
        body = self._shared.database.read(lambda connection: connection.scalar(query))
        if body is None:
            return None
        try:
            return _decoded(unpacked(body, "a cached reply"), key)
        except (DamagedDataError, InputError) as error:
            logger.warning("a cached reply cannot be used, and the model is asked again: %s", error)
        self._shared.writer.submit(
            lambda connection: connection.execute(delete(table).where(table.c.reply_key == key))
        ).result()
        return None

    async def keep(self, key: str, completion: Completion) -> None:
        """Keep a reply, unless one of this key is kept already.

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
        await self._shared.writer.submit_here(None, {self._insert: [row]})

    def clear(self, older_than: timedelta | None = None) -> int:
        """Remove all replies, or those that were kept longer ago than this; how many these were."""
        table = self._table
        wanted = delete(table)
        if older_than is not None:
            wanted = wanted.where(table.c.kept_at < time.time() - older_than.total_seconds())

        def remove(connection: Connection) -> int:
            return connection.execute(wanted).rowcount

        return self._shared.writer.submit(remove).result()


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
