"""The inputs of the runnable: a string, a dict, or a conversation, with or without a document."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue
from langchain_core.runnables import Runnable
from pydantic import RootModel
from typing_extensions import TypedDict

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.faces.document import SharedDocument
from rlm_integrations.records import Limits

SHAPES: Final = (
    'give a string, {"question": …, "context": …} or messages; the context is a string, a path, '
    "a Document, a retriever, or a list of "
    "these, and may be bound once by with_context(…) instead"
)
_MAX_EARLIER: Final = 20  # earlier messages of a conversation that the root model is shown
_MAX_MESSAGE_CHARS: Final = 4_000  # of each of these messages
_SPEAKERS: Final = {"human": "User", "ai": "Assistant", "system": "System"}
_CONTINUES: Final = "This question continues a conversation. What was said before, oldest first:"


class QuestionWithContext(TypedDict, total=False):
    """A question in a dict. `input` is another name for `question`; in `messages`, the last human
    message is the question.
    """

    question: str
    input: str
    messages: list[Any]
    chat_history: list[Any]
    context: Any


class RLMInput(RootModel[str | QuestionWithContext | list[Any]]):
    """A question, with or without a document."""


class AskedDocument(SharedDocument):
    """The document of the questions. Its `repr`, for traces, shows only its size. It is closed when
    this object is garbage collected.
    """

    def __init__(self, context: object) -> None:
        super().__init__(context)
        self._description = _description(context)
        self._is_users_own = isinstance(context, Corpus)
        self._is_followed = False

    async def corpus(self, limits: Limits) -> Corpus:
        """The document; see `SharedDocument`."""
        corpus = await super().corpus(limits)
        if not self._is_users_own and not self._is_followed:
            self._is_followed = True
            # Kept results hold the corpus too, and would keep it open
            weakref.finalize(self, corpus.close).atexit = False
        return corpus

    def __repr__(self) -> str:
        return self._description


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its document.

    Attributes:
        question: The question.
        document: The document, or a retriever of documents for the question.
        is_ours: Whether the document was passed with the question, and is closed after it.
        conversation: The messages before the question, or "".
    """

    question: str
    document: AskedDocument | Runnable[Any, Any]
    is_ours: bool
    conversation: str = ""

    @property
    def query(self) -> str:
        """The question as the root model sees it."""
        return (
            f"{self.question}\n\n{_CONTINUES}\n{self.conversation}"
            if self.conversation
            else self.question
        )

    @property
    def preview(self) -> dict[str, Any]:
        """The preview for traces, which never holds document text."""
        document = self.document
        what = (
            f"the documents found by {document.get_name()}"
            if isinstance(document, Runnable)
            else repr(document)
        )
        return {"question": self.question, "context": what}


def asked(given: object, bound: Any) -> Question:
    """Parse the input of a runnable.

    Args:
        given: A runnable's input.
        bound: The document to use if the input has none.

    Raises:
        InputError: The input has no question, or there is no document.
    """
    context = given.get("context") if isinstance(given, Mapping) else None
    question, before = _question_and_before(given)
    if context is None:
        context = bound
    if context is None:
        raise InputError(f"there is no document for the question {question[:60]!r}: {SHAPES}")
    return Question(
        question,
        bound_to(context),
        is_ours=not isinstance(context, AskedDocument | Corpus),
        conversation=_transcript(before),
    )


def bound_to(context: object) -> AskedDocument | Runnable[Any, Any]:
    """The context as a document that is read once; a retriever is returned unchanged."""
    return context if isinstance(context, AskedDocument | Runnable) else AskedDocument(context)


def _description(context: object) -> str:
    """A description of a context for traces, without its text or path."""
    if isinstance(context, str):
        return f"a string of {len(context):,} characters"
    if isinstance(context, Corpus):
        return repr(context)
    if isinstance(context, PathLike):
        return "a file"
    if isinstance(context, Sequence):
        return f"a list of {len(context):,} items"
    return f"a {type(context).__name__}"


def _question_and_before(given: object) -> tuple[str, Sequence[BaseMessage]]:
    """The question in an input of any supported shape, and the messages before it.

    Raises:
        InputError: There is no question.
    """
    before: Sequence[BaseMessage] = ()
    if isinstance(given, Mapping):
        before = _messages(given["chat_history"]) if given.get("chat_history") else ()
        given = next(
            (given[key] for key in ("question", "input", "messages") if given.get(key) is not None),
            None,
        )
    if isinstance(given, StringPromptValue):
        given = given.text
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, str):
        return given, before
    if isinstance(given, BaseMessage):
        given = [given]
    if (
        isinstance(given, list | tuple)
        and given
        and not any(isinstance(each, Document | str) for each in given)
    ):
        messages = _messages(given)
        at = next(
            (at for at in reversed(range(len(messages))) if messages[at].type == "human"), None
        )
        if at is None:
            raise InputError(f"there is no human message among {len(messages)}: {SHAPES}")
        return str(messages[at].text), [*before, *messages[:at]]
    what = f"a {type(given).__name__}"
    if isinstance(given, list | tuple):
        what = f"a list of {type(given[0]).__name__}" if given else "an empty list"
    raise InputError(
        f"there is no question in {what if given is not None else 'the input'}: {SHAPES}"
    )


def _messages(given: Any) -> list[BaseMessage]:
    try:
        return convert_to_messages(given)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"a list that is not a valid conversation ({error}): {SHAPES}") from error


def _transcript(messages: Sequence[BaseMessage]) -> str:
    """The latest messages of a conversation, each truncated; tool messages are left out."""
    said = [
        (_SPEAKERS[each.type], str(each.text).strip())
        for each in messages
        if each.type in _SPEAKERS
    ]
    lines = [
        f"{who}: {text[:_MAX_MESSAGE_CHARS]}{'…' if len(text) > _MAX_MESSAGE_CHARS else ''}"
        for who, text in said
        if text
    ]
    return "\n".join(lines[-_MAX_EARLIER:])
