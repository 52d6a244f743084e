"""The two forms of a root's replies: prose with fenced blocks, and objects in a JSON schema."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rlm_integrations.engine import prompts
from rlm_integrations.engine.parsing import SCHEMA, Reply, parse_reply, parse_structured
from rlm_integrations.errors import ModelError
from rlm_integrations.records import LLMError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyForm:
    """How a root writes its replies.

    Attributes:
        parse: Parses a reply.
        cut: Cuts a reply that is very long, for the conversation.
        shorten: Shortens an old reply in the conversation, to about so many characters.
        prompt: What the system prompt says of it.
        finish: How to finish, for the closing request.
        nothing_to_do: What the model is told of a reply with neither code nor a final answer.
        schema: The JSON schema of a reply, or None.
    """

    parse: Callable[..., Reply]
    cut: Callable[[str, int], str]
    shorten: Callable[[str, int], str]
    prompt: str
    finish: str
    nothing_to_do: str
    schema: Mapping[str, Any] | None = None

    def failure(self, error: LLMError) -> ModelError:
        """The error of a failed first call."""
        hint = (
            " (the request asked for an answer in a JSON schema: if the model or its server does "
            "not support that, leave out structured=True)"
            if self.schema is not None and error.type == "bad_request"
            else ""
        )
        return ModelError(f"{error.message}{hint}", type=error.type)


FENCED: Final = ReplyForm(
    parse=parse_reply,
    cut=prompts.cut_output,
    shorten=prompts.compacted_reply,
    prompt=prompts.FENCED,
    finish=prompts.FINISH_IN_BLOCK,
    nothing_to_do=prompts.NOTHING_TO_DO,
)
STRUCTURED: Final = ReplyForm(
    parse=parse_structured,
    cut=prompts.shorten_fields,
    shorten=prompts.shorten_fields,
    prompt=prompts.STRUCTURED,
    finish=prompts.FINISH_IN_FIELD,
    nothing_to_do=prompts.NO_CODE,
    schema=SCHEMA,
)


def form_of(*, structured: bool) -> ReplyForm:
    """The form that the option chooses."""
    return STRUCTURED if structured else FENCED
