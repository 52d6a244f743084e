"""What a question is to LangChain's users: a string, a dict, or a conversation, with a document or
without.
"""

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
    'give a string, {"question": …, "context": …} or messages; the context is a string, a path, a Document, a retriever, or a list of '
    "these, and may be bound once by with_context(…) instead"
)
_SAID: Final = 20  # earlier messages of a conversation that the root model is shown
_CHARACTERS: Final = 4_000  # of each of them
_SPEAKERS: Final = {"human": "User", "ai": "Assistant", "system": "System"}
_CONTINUES: Final = "This question continues a conversation. What was said before, oldest first:"


class QuestionWithContext(TypedDict, total=False):
    """A question in a dict. `input` is another name for `question`; of `messages`, the last human
    one is it.
    """

    question: str
    input: str
    messages: list[Any]
    chat_history: list[Any]
    context: Any


class RLMInput(RootModel[str | QuestionWithContext | list[Any]]):
    """A question, with a document or without."""


class AskedDocument(SharedDocument):
    """A document that is asked. In a trace it tells how much there is of it; once it is dropped,
    the document is closed.
    """

    def __init__(self, context: object) -> None:
        super().__init__(context)
        self._what = _description(context)
        self._is_users_own = isinstance(context, Corpus)
        self._is_followed = False

    async def corpus(self, limits: Limits) -> Corpus:
        """The document; see `Bound`."""
        corpus = await super().corpus(limits)
        if not self._is_users_own and not self._is_followed:
            self._is_followed = True
            # Results that are kept hold it too, and would keep it open
            weakref.finalize(self, corpus.close).atexit = False
        return corpus

    def __repr__(self) -> str:
        return self._what


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its document.

    Attributes:
        question: The question.
        document: The document, or what finds documents for the question.
        is_ours: Whether the document came with the question, and is let go of with it.
        conversation: What was said before the question, or "".
    """

    question: str
    document: AskedDocument | Runnable[Any, Any]
    is_ours: bool
    conversation: str = ""

    @property
    def query(self) -> str:
        """The question as the root model reads it."""
        return (
            f"{self.question}\n\n{_CONTINUES}\n{self.conversation}"
            if self.conversation
            else self.question
        )

    @property
    def preview(self) -> dict[str, Any]:
        """What traces show of it, which is never the document."""
        document = self.document
        what = (
            f"what {document.get_name()} finds"
            if isinstance(document, Runnable)
            else repr(document)
        )
        return {"question": self.question, "context": what}


def asked(given: object, bound: Any) -> Question:
    """What was asked.

    Args:
        given: A runnable's input.
        bound: The document to take where the input has none.

    Raises:
        InputError: It holds no question, or there is no document.
    """
    context = given.get("context") if isinstance(given, Mapping) else None
    question, before = _question_and_before(given)
    if context is None:
        context = bound
    if context is None:
        raise InputError(f"there is no document to ask {question[:60]!r} of: {SHAPES}")
    return Question(
        question,
        bound_to(context),
        is_ours=not isinstance(context, AskedDocument | Corpus),
        conversation=_told(before),
    )


def bound_to(context: object) -> AskedDocument | Runnable[Any, Any]:
    """The context as a document that is read once; a retriever as it is."""
    return context if isinstance(context, AskedDocument | Runnable) else AskedDocument(context)


def _description(context: object) -> str:
    """What traces may know of a context: no word of it, no path."""
    if isinstance(context, str):
        return f"a text of {len(context):,} characters"
    if isinstance(context, Corpus):
        return repr(context)
    if isinstance(context, PathLike):
        return "a file"
    if isinstance(context, Sequence):
        return f"a list of {len(context):,} texts"
    return f"a {type(context).__name__}"


def _question_and_before(given: object) -> tuple[str, Sequence[BaseMessage]]:
    """The question in an input of any shape, and the messages before it.

    Raises:
        InputError: There is none.
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
        raise InputError(f"a list that is no conversation ({error}): {SHAPES}") from error


def _told(messages: Sequence[BaseMessage]) -> str:
    """The end of a conversation, each message cut to a bound; what tools said is left out."""
    said = [
        (_SPEAKERS[each.type], str(each.text).strip())
        for each in messages
        if each.type in _SPEAKERS
    ]
    lines = [
        f"{who}: {text[:_CHARACTERS]}{'…' if len(text) > _CHARACTERS else ''}"
        for who, text in said
        if text
    ]
    return "\n".join(lines[-_SAID:])
