"""What a question is to LangChain's users: a text, a dict, or a conversation, with a document or without."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue
from pydantic import RootModel
from typing_extensions import TypedDict

from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.bound import Bound
from rlm_integrations.errors import InputError
from rlm_integrations.langchain.stores import KEPT
from rlm_integrations.store import SharedStore

SHAPES = (
    'give a text, {"question": …, "context": …} or messages; the context is a text, a path, a Document, or a list of these, and may be '
    "bound once by with_context(…) instead"
)


class QuestionWithContext(TypedDict, total=False):
    """A question in a dict. `input` is another name for `question`; of `messages`, the last human one is it."""

    question: str
    input: str
    messages: list[Any]
    context: Any


RLMInput = RootModel[str | QuestionWithContext | list[Any]]


class AskedDocument(Bound):
    """A document that is asked. In a trace it tells how much there is of it.

    Attributes:
        stores: What the latest runs over it found, for as long as it is bound to a runnable.
    """

    def __init__(self, context: object) -> None:
        super().__init__(context)
        self.stores: deque[SharedStore] = deque(maxlen=KEPT)
        self._what = _description(context)

    def __repr__(self) -> str:
        return self._what


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its document.

    Attributes:
        question: The question.
        document: The document.
        is_ours: Whether the document came with the question, and is let go of with it.
    """

    question: str
    document: AskedDocument
    is_ours: bool

    @property
    def preview(self) -> dict[str, Any]:
        """What traces show of it, which is never the document."""
        return {"question": self.question, "context": repr(self.document)}


def asked(given: object, bound: AskedDocument | None) -> Asked:
    """What was asked.

    Args:
        given: A runnable's input.
        bound: The document to take where the input has none.

    Raises:
        InputError: It holds no question, or there is no document.
    """
    context = given.get("context") if isinstance(given, Mapping) else None
    question = question_of(given)
    if context is None:
        context = bound
    if context is None:
        raise InputError(f"there is no document to ask {question[:60]!r} of: {SHAPES}")
    return Asked(question, bound_to(context), is_ours=not isinstance(context, AskedDocument | Corpus))


def bound_to(context: object) -> AskedDocument:
    """The context as a document that is read once."""
    return context if isinstance(context, AskedDocument) else AskedDocument(context)


def _description(context: object) -> str:
    """What traces may know of a context: no text, no path."""
    if isinstance(context, str):
        return f"a text of {len(context):,} characters"
    if isinstance(context, Corpus):
        return repr(context)
    if isinstance(context, PathLike):
        return "a file"
    if isinstance(context, Sequence):
        return f"a list of {len(context):,} texts"
    return f"a {type(context).__name__}"


def question_of(given: object) -> str:
    """The question in an input of whatever shape.

    Raises:
        InputError: There is none.
    """
    if isinstance(given, Mapping):
        given = next((given[key] for key in ("question", "input", "messages") if given.get(key) is not None), None)
    if isinstance(given, StringPromptValue):
        given = given.text
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, str):
        return given
    if isinstance(given, BaseMessage):
        given = [given]
    if isinstance(given, list | tuple) and given and not any(isinstance(each, Document | str) for each in given):
        return _last_human(given)
    what = f"a {type(given).__name__}"
    if isinstance(given, list | tuple):
        what = f"a list of {type(given[0]).__name__}" if given else "an empty list"
    raise InputError(f"there is no question in {what if given is not None else 'the input'}: {SHAPES}")


def _last_human(messages: Sequence[Any]) -> str:
    try:
        conversation = convert_to_messages(messages)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"a list that is no conversation ({error}): {SHAPES}") from error
    for message in reversed(conversation):
        if message.type == "human":
            return str(message.text)
    raise InputError(f"there is no human message among {len(conversation)}: {SHAPES}")
