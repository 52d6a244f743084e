"""What a run leaves, as LangChain's users read it: plain JSON and Documents."""

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import Usage
from rlm_integrations.result import RLMResult
from rlm_integrations.store.evidence import Evidence, cited, places


class RLMOutput(BaseModel):
    """What the runnable gives, as a dict of these."""

    input: str = Field(description="The question.")
    answer: Any = Field(description="The answer: a text, or an instance of output_type.")
    context: list[Document] = Field(description="The evidence: places in the documents with their own words.")
    usage_metadata: dict[str, Any] = Field(description="Tokens by model.")
    rlm: dict[str, Any] = Field(description="run_id, store_id, iterations, sub_calls, stop_reason, and the places of the evidence.")


def output_of(result: RLMResult, corpus: Corpus | None) -> dict[str, Any]:
    """The output of a run, but for the question; its document is in no part of it but for the quotes."""
    return {
        "answer": result.answer,
        "context": [document_of(each) for each in cited(result.citations, corpus)],
        "usage_metadata": {model: usage_metadata(usage) for model, usage in result.spent.usage.items()},
        "rlm": {
            "run_id": result.run_id,
            "store_id": result.run_id if result.store is not None else None,
            "iterations": result.iterations,
            "sub_calls": result.total_calls - result.spent.calls_at(0),
            "stop_reason": result.stop_reason,
            "error": result.error,
            "citations": places(result.citations, corpus),
            "dropped_citations": result.dropped_citations,
        },
    }


def document_of(evidence: Evidence) -> Document:
    """A finding as a Document."""
    return Document(id=evidence.id, page_content=evidence.text, metadata=evidence.metadata())


def plain(output: Any) -> dict[str, Any]:
    """An output in JSON's types alone, as artifacts and checkpoints need it.

    Raises:
        InputError: It is not the output of an `RLMRunnable`.
    """
    if not (isinstance(output, Mapping) and {"answer", "context", "rlm"} <= output.keys()):
        raise InputError(
            f"the runnable gave a {type(output).__name__}: here an RLMRunnable's whole output is needed, without pick(…) or a parser"
        )
    return {
        **output,
        "answer": to_jsonable_python(output["answer"], fallback=str),
        "context": [{"id": each.id, "page_content": each.page_content, "metadata": each.metadata} for each in output["context"]],
    }


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Tokens in LangChain's form."""
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )
