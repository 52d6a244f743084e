"""The latest results of each engine, by the ids of their runs: what a response's metadata hold is
the id alone.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from weakref import WeakSet

from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse

from rlm_integrations._concurrency.runtime import shared
from rlm_integrations.errors import InputError
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore
from rlm_integrations.store.reader import StoreReader

KEPT: Final = 32  # results of an engine

Answered = RESPONSE_TYPE | AgentChatResponse | StreamingAgentChatResponse
_ANSWERED = (
    Response,
    StreamingResponse,
    AsyncStreamingResponse,
    PydanticResponse,
    AgentChatResponse,
    StreamingAgentChatResponse,
)


class Results:
    """The results of an engine's latest runs, cancelled ones included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, RLMResult] = OrderedDict()
        shared("results of engines", WeakSet[Results]).add(self)

    @property
    def last(self) -> RLMResult | None:
        """The result of the latest run."""
        with self._lock:
            return next(reversed(self._kept.values()), None)

    @property
    def last_store(self) -> SharedStore | None:
        """What the latest run found on its way."""
        return self.last.store if self.last is not None else None

    def keep(self, result: RLMResult) -> None:
        """Keep a result until `KEPT` further ones have come, or the engine is gone."""
        with self._lock:
            self._kept[result.run_id] = result
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def find(self, run_id: str) -> RLMResult | None:
        """The result of this run, where it is kept here."""
        with self._lock:
            return self._kept.get(run_id)


def result_of(response: Answered | str) -> RLMResult:
    """The result of the run that gave a response: its trajectory, cost, store and the rest.

    The results of an engine's last 32 runs are kept in this process, for as long as the engine is.

    Args:
        response: A response of an engine, a synthesizer or a chat engine, or its
            `metadata["run_id"]`.

    Raises:
        InputError: It is not a response of a run, or its result is no longer kept.
    """
    run_id: object = response
    if isinstance(response, _ANSWERED):
        metadata: object = getattr(response, "metadata", None)
        run_id = metadata.get("run_id") if isinstance(metadata, Mapping) else None
        if run_id is None:
            raise InputError(
                "this response is not of a run: no text was found to read, or another engine gave it"
            )
    if not isinstance(run_id, str):
        raise InputError(
            f"a result is found by a response or by its metadata['run_id'], not by {type(response).__name__}"
        )
    for results in list(shared("results of engines", WeakSet[Results])):
        if (found := results.find(run_id)) is not None:
            return found
    raise InputError(
        f"there is no result of run {run_id[:60]!r} in this process: the last {KEPT} of each engine are kept, for as long as the engine is"
    )


def store_of(given: object) -> StoreReader:
    """The store that is meant by itself, by a result, or by a response or its run's id.

    Raises:
        InputError: It is none of these, or the run had no store.
    """
    if isinstance(given, StoreReader):
        return given
    if isinstance(given, (str, *_ANSWERED)):
        given = result_of(given)
    if not isinstance(given, RLMResult):
        raise InputError(
            f"store must be a store, a result, a response or its run_id, not {type(given).__name__}"
        )
    if given.store is None:
        raise InputError("this result has no store: its run had store_mode='none'")
    return given.store
