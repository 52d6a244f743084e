"""The certificate of a run's coverage, which `verify` checks."""

from typing import TYPE_CHECKING, Any

from rlm_integrations._json import to_plain
from rlm_integrations.call_prompts import PromptWalk
from rlm_integrations.verify import KIND, joined, seal

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult


def certificate_of(result: "RLMResult", uncounted: int) -> dict[str, Any]:
    """The certificate of a run, which `verify` checks. Calls whose prompts are not in the record in
    full are only counted.

    Args:
        result: The run.
        uncounted: The number of these calls.
    """
    walk = PromptWalk().prompts(result.trajectory)
    prompts = [each for each in walk if not each.prompt.left_out]
    read: dict[str, list[list[int]]] = {source.name: [] for source in result.sources}
    for each in prompts:
        for span in each.prompt.spans:
            read.setdefault(span.source, []).append([span.start, span.end])
    content = {
        "kind": KIND,
        "version": result.version,
        "run_id": result.run_id,
        "question": result.question,
        "answer": to_plain(result.answer),
        "stop_reason": result.stop_reason,
        "sources": [
            {
                "name": source.name,
                "file": source.file,
                "length": source.length,
                "sha256": source.sha256,
                "read": joined(read[source.name]),
            }
            for source in result.sources
        ],
        "calls": len(prompts) + uncounted,
        "uncounted": uncounted,
        "prompts": [
            {
                "path": each.path,
                "sha256": each.prompt.sha256,
                "pieces": [
                    piece if isinstance(piece, str) else [piece.source, piece.start, piece.end]
                    for piece in each.prompt.pieces
                ],
            }
            for each in prompts
        ],
        "citations": [
            {"source": each.source, "start": each.start, "end": each.end, "quote": each.quote}
            for each in result.citations
        ],
    }
    return {**content, "seal": seal(content)}
