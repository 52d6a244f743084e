"""The origin of a text, without the text: the data for turning a citation into a LlamaIndex
node.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    NodeWithScore,
    ObjectType,
    RelatedNodeInfo,
)

from rlm_integrations.llama_index.nodes import is_slice


@dataclass(frozen=True, slots=True)
class Look:
    """How the metadata of a node are displayed; most nodes of an index share one `Look`.

    Attributes:
        excluded_llm_metadata_keys: Keys that are excluded from prompts.
        excluded_embed_metadata_keys: Keys that are excluded from embeddings.
        templates: The node's templates, as pairs of field name and template.
    """

    excluded_llm_metadata_keys: tuple[str, ...] = ()
    excluded_embed_metadata_keys: tuple[str, ...] = ()
    templates: tuple[tuple[str, str], ...] = ()

    def fields(self, *, excluded: tuple[str, ...] = ()) -> dict[str, Any]:
        """The node fields for this look, with further excluded keys."""
        return {
            "excluded_llm_metadata_keys": [*self.excluded_llm_metadata_keys, *excluded],
            "excluded_embed_metadata_keys": [*self.excluded_embed_metadata_keys, *excluded],
            **dict(self.templates),
        }


_TEMPLATES = ("metadata_template", "metadata_separator", "text_template")
_look = lru_cache(maxsize=256)(Look)


@dataclass(frozen=True, slots=True)
class NodeOrigin:
    """The origin of a text.

    Attributes:
        kind: Its LlamaIndex type; None for a string or a file.
        document: The document that the node was split from, if known.
        at: Its offset in that document, if the node itself proves it.
        score: The retriever's score.
        metadata: The node's own metadata; None if it is not a node.
        look: How the metadata are displayed.
    """

    kind: ObjectType | None = None
    document: RelatedNodeInfo | None = None
    at: int | None = None
    score: float | None = None
    metadata: Mapping[str, Any] | None = None
    look: Look = Look()

    @classmethod
    def of(cls, thing: object) -> Self:
        """The origin of a document, a node, or any other text."""
        score = thing.score if isinstance(thing, NodeWithScore) else None
        node = thing.node if isinstance(thing, NodeWithScore) else thing
        if not isinstance(node, BaseNode):
            return cls(score=score)
        look = _look(
            tuple(node.excluded_llm_metadata_keys),
            tuple(node.excluded_embed_metadata_keys),
            tuple(
                (name, found)
                for name in _TEMPLATES
                if isinstance(found := getattr(node, name, None), str)
            ),
        )
        if isinstance(node, Document):
            return cls(ObjectType.DOCUMENT, score=score, metadata=node.metadata, look=look)
        at = getattr(node, "start_char_idx", None) if is_slice(node) else None
        return cls(ObjectType.TEXT, node.source_node, at, score, node.metadata, look)

    def metadata_or(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the node's metadata, or of `known` if it is not a node."""
        return deepcopy(dict(known if self.metadata is None else self.metadata))


def has_image_only(thing: object) -> bool:
    """Whether this is a node with an image but no text."""
    node = thing.node if isinstance(thing, NodeWithScore) else thing
    if not isinstance(node, BaseNode):
        return False
    has_image = isinstance(node, ImageNode) or getattr(node, "image_resource", None) is not None
    return has_image and not node.get_content().strip()
