"""Answers as messages whose blocks carry citations."""

from llama_index.core.base.llms.types import (
    ChatMessage,
    CitationBlock,
    ContentBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.base.response.schema import RESPONSE_TYPE

from rlm_integrations.cited_answer import statements


def cited_message(response: RESPONSE_TYPE) -> ChatMessage:
    """A response of an `RLMQueryEngine` as a message: the answer, then a `CitationBlock` for each
    number in it, in order, with the quote, the document's id as `source`, and the quote's place
    there as `additional_location_info`.
    """
    answer, sources = str(response), response.source_nodes
    found, _ = statements(answer, len(sources))
    numbers = sorted({number for each in found for number in each.numbers})
    blocks: list[ContentBlock] = [TextBlock(text=answer)]
    for number in numbers:
        node = sources[number - 1].node
        document = node.ref_doc_id or node.node_id
        title = str(node.metadata.get("file_name") or node.metadata.get("title") or document)
        places = {"start": getattr(node, "start_char_idx", None)}
        blocks.append(
            CitationBlock(
                cited_content=TextBlock(text=node.get_content()),
                source=document,
                title=title,
                additional_location_info={
                    "number": number,
                    **{name: place for name, place in places.items() if place is not None},
                },
            )
        )
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
