"""The output of a run for LangChain: plain JSON and Documents."""

import json
from collections.abc import Mapping
from typing import Any, Optional

from langchain_core.documents import Document
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from pydantic import BaseModel, Field, create_model
from pydantic_core import to_jsonable_python

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.faces.evidence import Evidence, citations_as_evidence, places
from rlm_integrations.records import Usage
from rlm_integrations.result import RLMResult


class RLMOutput(BaseModel):
    """The fields of the runnable's output, which is a dict."""

    input: str = Field(description="The question.")
    answer: Any = Field(
        description=(
            "The answer: a string, or an instance of output_type, or None if the run did not "
            "finish."
        )
    )
    context: list[Document] = Field(
        description="The evidence: quotes from the documents with their spans."
    )
    usage_metadata: dict[str, Any] = Field(description="Tokens by model.")
    rlm: dict[str, Any] = Field(
        description=(
            "run_id, store_id, iterations, sub_calls, stop_reason, error, partial, cost, "
            "elapsed, and the spans of the evidence."
        )
    )


def output_schema(output_type: Any) -> type[RLMOutput]:
    """The output schema of a runnable with this answer type."""
    # The type is known only at run time
    kind: Any = str if output_type is None else Optional[output_type]  # noqa: UP045
    return create_model(
        "RLMOutput", __base__=RLMOutput, answer=(kind, RLMOutput.model_fields["answer"])
    )


def output_of(result: RLMResult, corpus: Corpus | None) -> dict[str, Any]:
    """The output of a run, without the question. It holds no document text except the quotes."""
    return {
        "answer": result.answer,
        "context": [
            evidence_document(each) for each in citations_as_evidence(result.citations, corpus)
        ],
        "usage_metadata": {
            model: usage_metadata(usage) for model, usage in result.spent.usage.items()
        },
        "rlm": {
            "run_id": result.run_id,
            "store_id": result.run_id if result.store is not None else None,
            "iterations": result.iterations,
            "sub_calls": result.total_calls - result.spent.calls_at(0),
            "stop_reason": result.stop_reason,
            "error": result.error,
            "partial": result.partial,
            "cost": result.cost,
            "elapsed": result.elapsed,
            "citations": places(result.citations, corpus),
            "dropped_citations": result.dropped_citations,
        },
    }


def evidence_document(evidence: Evidence) -> Document:
    """A finding as a Document.

    Its `source` is the original document's `source` metadata, as in LangChain, else its id.
    """
    metadata = evidence.metadata()
    metadata["source"] = str(metadata["source_metadata"].get("source") or metadata["doc_id"])
    return Document(id=evidence.id, page_content=evidence.text, metadata=metadata)


def plain_output(output: Any) -> dict[str, Any]:
    """An output in JSON types only, for artifacts and checkpoints.

    Raises:
        InputError: It is not the output of an `RLMRunnable`.
    """
    if not (isinstance(output, Mapping) and {"answer", "context", "rlm"} <= output.keys()):
        raise InputError(
            f"the runnable returned a {type(output).__name__}: an RLMRunnable's whole "
            "output is needed here, without pick(…) or a parser"
        )
    return {
        **output,
        "answer": to_jsonable_python(output["answer"], fallback=str),
        "context": [
            {"id": each.id, "page_content": each.page_content, "metadata": each.metadata}
            for each in output["context"]
        ],
    }


def answer_text(output: Mapping[str, Any]) -> str:
    """The answer of a plain output as a string; if the run did not finish, the best partial
    answer.
    """
    answer = output["answer"]
    if answer is None and output["rlm"]["partial"] is not None:
        answer = output["rlm"]["partial"]
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Tokens in LangChain's form."""
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(
            cache_read=usage.cached_tokens, cache_creation=usage.cache_write_tokens
        ),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )
