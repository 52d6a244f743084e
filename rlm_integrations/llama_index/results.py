"""The latest results of each engine, by run id: a response's metadata hold only the id."""

from collections.abc import Mapping
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
from rlm_integrations.faces.kept_results import MAX_KEPT_RESULTS, KeptResults, store_in
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore
from rlm_integrations.store.reader import StoreReader

Answered = RESPONSE_TYPE | AgentChatResponse | StreamingAgentChatResponse
_ANSWERED = (
    Response,
    StreamingResponse,
    AsyncStreamingResponse,
    PydanticResponse,
    AgentChatResponse,
    StreamingAgentChatResponse,
)


class Results(KeptResults):
    """The results of an engine's latest runs, including cancelled ones."""

    def __init__(self) -> None:
        super().__init__()
        shared("results of engines", WeakSet[Results]).add(self)

    @property
    def last_store(self) -> SharedStore | None:
        """The findings of the latest run."""
        return self.last.store if self.last is not None else None


def result_of(response: Answered | str) -> RLMResult:
    """The result of the run behind a response, with its trajectory, cost and store.

    The results of an engine's last 32 runs are kept in this process, for the engine's lifetime.

    Args:
        response: A response of an engine, a synthesizer or a chat engine, or its
            `metadata["run_id"]`.

    Raises:
        InputError: It is not the response of a run, or its result is no longer kept.
    """
    run_id: object = response
    if isinstance(response, _ANSWERED):
        metadata: object = getattr(response, "metadata", None)
        run_id = metadata.get("run_id") if isinstance(metadata, Mapping) else None
        if run_id is None:
            raise InputError(
                "this response is not from a run: there was no text to read, or another kind "
                "of engine gave it"
            )
    if not isinstance(run_id, str):
        raise InputError(
            f"expected a response or its metadata['run_id'], not {type(response).__name__}"
        )
    for results in list(shared("results of engines", WeakSet[Results])):
        if (found := results.find(run_id)) is not None:
            return found
    raise InputError(
        f"there is no result of run {run_id[:60]!r} in this process: "
        f"the last {MAX_KEPT_RESULTS} of each engine are kept, for the engine's lifetime"
    )


def store_of(given: object) -> StoreReader:
    """The store, given as a store, a result, a response, or a run id.

    Raises:
        InputError: It is not one of these, or the run had no store.
    """
    if isinstance(given, StoreReader):
        return given
    if isinstance(given, (str, *_ANSWERED)):
        given = result_of(given)
    if not isinstance(given, RLMResult):
        raise InputError(
            f"store must be a store, a result, a response or its run_id, not {type(given).__name__}"
        )
    return store_in(given)
