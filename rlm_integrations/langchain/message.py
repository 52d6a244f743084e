"""Answers as messages whose content blocks carry citations."""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.content import Citation, create_citation, create_text_block

from rlm_integrations.cited_answer import statements
from rlm_integrations.langchain.outputs import answer_text, plain_output


def answer_message(output: Any) -> AIMessage:
    """The output of an `RLMRunnable` as a message.

    Its only block is the answer. Each citation is an annotation with the place of its statement in
    the answer (`start_index`, `end_index`), the quote (`cited_text`), the document's name
    (`title`), and the place of the quote (`extras`: `doc_id`, `source`, `start`, `end`). Citations
    that the answer does not number are of the whole answer.

    Raises:
        InputError: It is not the output of an `RLMRunnable`.
    """
    plain = plain_output(output)
    answer, run = answer_text(plain), plain["rlm"]
    named = ("run_id", "stop_reason", "error", "iterations", "sub_calls", "cost")
    return AIMessage(
        content_blocks=[create_text_block(answer, annotations=[*_annotations(answer, plain)])],
        response_metadata={name: run[name] for name in named},
    )


def _annotations(answer: str, plain: Mapping[str, Any]) -> Iterator[Citation]:
    cited, _ = statements(answer, len(plain["context"]))
    places = [(each.start, each.end, number) for each in cited for number in each.numbers]
    numbered = {number for _, _, number in places}
    for number, each in enumerate(plain["context"], 1):
        if number not in numbered:
            places.append((0, len(answer), number))
        (span,) = each["metadata"]["spans"]
        quote = {"title": each["metadata"]["source"], "cited_text": each["page_content"]}
        for start, end, own in places:
            if own == number:
                yield create_citation(**quote, start_index=start, end_index=end, **span)
