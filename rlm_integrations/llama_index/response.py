"""Results as LlamaIndex responses."""

import re
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Literal

from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.schema import NodeWithScore
from pydantic import BaseModel
from pydantic_core import to_json

from rlm_integrations.llama_index.cited import EvidenceOfRun
from rlm_integrations.result import RLMResult

Streaming = Literal["sync", "async"] | None

EMPTY = "Empty Response"  # the answer of LlamaIndex's own synthesizers without nodes
_WORD_BOUNDARY = re.compile(r"(?<=\s)(?=\S)")


def response_of(
    found: EvidenceOfRun | None,
    more: Sequence[NodeWithScore] = (),
    *,
    streaming: Streaming,
    empty: str = EMPTY,
) -> RESPONSE_TYPE:
    """The response for a run's result, or for a run that had nothing to read.

    Its source nodes are the verified citations, followed by `more`. Its metadata are few and flat,
    because tools and routers pass them on. A stream splits the finished answer, so sources and
    metadata are available from the start. Typed answers are never streamed.
    """
    if found is None:
        sources, metadata = [*more], {"iterations": 0, "calls": 0, "tokens": 0}
    else:
        sources, metadata = [*found.nodes, *more], metadata_of(found.result)
        if isinstance(found.result.answer, BaseModel):
            return PydanticResponse(found.result.answer, sources, metadata)
    text = response_text(found, empty)
    if streaming == "sync":
        return StreamingResponse(pieces(text), sources, metadata)
    if streaming == "async":
        return AsyncStreamingResponse(apieces(text), sources, metadata)
    return Response(text, sources, metadata)


def response_text(found: EvidenceOfRun | None, empty: str = EMPTY) -> str:
    """The answer as a string; if the run did not finish, the best partial answer."""
    if found is None:
        return empty
    result = found.result
    answer = (
        result.partial if result.answer is None and result.partial is not None else result.answer
    )
    return (answer if isinstance(answer, str) else to_json(answer, fallback=str).decode()) or empty


def metadata_of(result: RLMResult) -> dict[str, Any]:
    """The metadata of a response."""
    known = {
        "run_id": result.run_id,
        "stop_reason": result.stop_reason,
        "iterations": result.iterations,
        "calls": result.total_calls,
        "tokens": sum(
            each.input_tokens + each.output_tokens for each in result.spent.usage.values()
        ),
        "cost": result.cost,
        "dropped_citations": result.dropped_citations,
    }
    return known if result.error is None else {**known, "error": result.error}


def pieces(text: str) -> Generator[str, None, None]:
    """The text word by word."""
    yield from _WORD_BOUNDARY.split(text)


async def apieces(text: str) -> AsyncGenerator[str, None]:
    """The same for asynchronous callers."""
    for piece in _WORD_BOUNDARY.split(text):
        yield piece
