"""What leaves an agent's conversation, and the messages that stand in its place."""

import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from langchain_core.messages import (
    AnyMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.added_source import AddedSource
from rlm_integrations.faces.growing import GrowingDocument
from rlm_integrations.faces.stubs import is_worth_a_stub, make_stub
from rlm_integrations.langchain.agents.exchanges import MOVED, Count, Exchange, choose, transcript
from rlm_integrations.langchain.agents.stubs import STUB, message_text, with_stub

M = TypeVar("M", bound=BaseMessage)

DOCUMENT: Final = "rlm_document"  # marks a message with the document of a run without a thread
_PLACES: Final = "_messages"  # in the metadata of a transcript: where each message begins
_TRANSCRIPT_CHARS: Final = 100_000  # of one source, if exchanges are not longer
_NOTE: Final = (
    "[This is a note of the agent's memory, not of the user. Earlier messages ({count}) were moved "
    "from here, whole, to the archive of this conversation, the latest as {last!r}. "
    "ask_context(question) answers a question over the archive, with quotes; "
    "search_context(pattern) finds words in it; read_context(id, start, end) reads a part of it.]"
)


class Archive:
    """Moves messages of one conversation to its document.

    Args:
        document: The document.
        mark: Added to the `additional_kwargs` of messages that refer to the document.
    """

    def __init__(self, document: GrowingDocument, mark: Mapping[str, Any]) -> None:
        self._document = document
        self._mark = dict(mark)

    async def shorten(self, message: M) -> M:
        """The message with a stub for its text, which is moved; other blocks and the artifact stay."""
        text = message_text(message.content)
        if STUB in message.additional_kwargs or not is_worth_a_stub(text):
            return message
        if isinstance(message, ToolMessage):
            name, key = message.name or "tool", message.tool_call_id
            what = f"The output of {name}"
            metadata = {"tool": name, "tool_call_id": key}
        else:
            name, key, what = message.type, str(message.id), "This message"
            metadata = {"message": key}
        source = await self._document.add(name, text, key=key, metadata=metadata)
        marks = {**message.additional_kwargs, **self._mark, STUB: source.id}
        content = with_stub(message.content, make_stub(what, source, text))
        return message.model_copy(update={"content": content, "additional_kwargs": marks})

    async def fit(
        self,
        sent: Sequence[AnyMessage],
        state: Sequence[AnyMessage],
        fixed: int,
        most: int,
        keep_recent: int,
        count: Count,
    ) -> tuple[list[AnyMessage], list[AnyMessage | RemoveMessage]]:
        """Move messages until a request has at most `most` tokens.

        Args:
            sent: The messages of the request, as other middleware left them.
            state: The messages of the state, which are moved as they are there.
            fixed: The tokens of everything else in the request.
            most: The bound.
            keep_recent: How many of the last messages stay.
            count: Counts the tokens of messages.

        Returns:
            The messages of the request, and the changes of the state: messages that replace those
            of the same ids, and removals.
        """
        originals = {each.id: each for each in state if each.id is not None}
        total = fixed + await in_thread(count, sent)  # a tokenizer takes its time
        chosen = [
            each
            for each in await in_thread(choose, sent, count, total, most, keep_recent)
            if all(message.id in originals for message in each.messages)
        ]
        left, changes = await self._move(list(sent), chosen, originals)
        total = fixed + await in_thread(count, left)
        for kind in (ToolMessage, HumanMessage):  # what is left is too large by itself
            order = sorted(
                (at for at, each in enumerate(left) if isinstance(each, kind)),
                key=lambda at: -len(message_text(left[at].content)),
            )
            for at in order:
                if total <= most:
                    break
                if left[at].id in originals:
                    total -= await in_thread(count, [left[at]])
                    left[at] = await self.shorten(left[at])
                    total += await in_thread(count, [left[at]])
                    changes.append(left[at])
        return left, changes

    async def _move(
        self,
        messages: list[AnyMessage],
        chosen: Sequence[Exchange],
        originals: Mapping[Any, AnyMessage],
    ) -> tuple[list[AnyMessage], list[AnyMessage | RemoveMessage]]:
        if not chosen:
            return messages, []
        moved = [originals[message.id] for each in chosen for message in each.messages]
        for group in _groups(chosen):
            texts = [originals[message.id] for each in group for message in each.messages]
            last = await self._add(texts)
        before = next((each for each in messages if MOVED in each.additional_kwargs), None)
        count = len(moved) + (0 if before is None else before.additional_kwargs[MOVED])
        # In the place of the first message that was ever moved: the reducer keeps places by ids
        id_ = moved[0].id if before is None else before.id
        note = HumanMessage(
            _NOTE.format(count=f"{count:,}", last=last.id),
            id=id_,
            additional_kwargs={**self._mark, MOVED: count},
        )
        gone = {each.id for each in moved}
        left = [
            note if each.id == id_ else each
            for each in messages
            if each.id == id_ or each.id not in gone
        ]
        removed = [RemoveMessage(id=each) for each in sorted(map(str, gone - {id_}))]
        return left, [note, *removed]

    async def _add(self, messages: Sequence[AnyMessage]) -> AddedSource:
        text, places = transcript(messages)
        metadata = {"what": "earlier messages of the conversation", _PLACES: places}
        return await self._document.add(
            "conversation", text, key=str(messages[0].id), metadata=metadata
        )


def _groups(exchanges: Sequence[Exchange]) -> list[list[Exchange]]:
    """The exchanges in groups whose transcripts have a size that is easily read."""
    groups: list[list[Exchange]] = [[]]
    size = 0
    for each in exchanges:
        length = sum(len(message_text(message.content)) for message in each.messages)
        if groups[-1] and size + length > _TRANSCRIPT_CHARS:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += length
    return groups


def new_document_id() -> str:
    """An id that cannot be guessed: messages that a client sends may name it."""
    return uuid.uuid4().hex


def with_message_ids(artifact: dict[str, Any]) -> dict[str, Any]:
    """The artifact of an answer, with the id of the message, or of the tool call, of each quote."""
    context = []
    for each in artifact["context"]:
        metadata = dict(each["metadata"])
        about = dict(metadata["source_metadata"])
        places = about.pop(_PLACES, None)
        if places:
            starts = [start for start, _ in places]
            at = bisect_right(starts, metadata["spans"][0]["start"]) - 1
            about["message"] = places[at][1]
        metadata["source_metadata"] = about
        context.append({**each, "metadata": metadata})
    return {**artifact, "context": context}
