"""The conversation with a root model. Old messages are shortened to keep it within the context
window.
"""

from collections.abc import Iterable, Sequence

from rlm_integrations.engine import prompts
from rlm_integrations.engine.prompt_size import estimate
from rlm_integrations.engine.reply_form import FENCED, ReplyForm
from rlm_integrations.records import Message

_CHARACTERS_PER_TOKEN = 3
# The maximum length of a shortened reply, in characters; lower if the replies of a long run would
# not fit into the window together
_SHORTENED_CHARS = 300
_EXPECTED_REPLIES = 200  # of a long run
_COMPACTED = 0.5  # of the limit: what is left is room for the next turns


class Conversation:
    """The messages of one run. Messages are only appended, so that the provider's prefix cache
    works; near the limit of the window, older ones are shortened, which loses the cache once.

    Args:
        messages: The list to append to.
        window: The context window of the model, in tokens.
        compact_at: The part of the window above which older messages are shortened.
        question_start: The words with which every question begins.
        form: The form of the replies.
    """

    def __init__(
        self,
        messages: list[Message],
        *,
        window: int,
        compact_at: float,
        question_start: str = "Question: ",
        form: ReplyForm = FENCED,
    ) -> None:
        self.messages = messages
        self._form = form
        self._question_start = question_start
        self._most = window * compact_at
        self._longest_reply = int(window * compact_at * _CHARACTERS_PER_TOKEN / 4)  # characters
        self._shortened = min(
            _SHORTENED_CHARS, int(window * compact_at * _CHARACTERS_PER_TOKEN / _EXPECTED_REPLIES)
        )
        self._question = 0  # the index of the question
        # How many messages were counted, and their tokens: a long run has many
        self._counted = self._tokens = 0
        # The index and the message to which the closing request was appended
        self._before_closing: tuple[int, Message] | None = None

    def begin(self, history: Sequence[Message], question: str) -> None:
        """Start with the history, and ask a question."""
        self.messages[:] = history
        self._counted = self._tokens = 0
        self.add_user(question)
        self._question = len(self.messages) - 1

    def add_user(self, text: str) -> None:
        """Add a user message. It is joined to a preceding user message, because many providers
        require alternating roles.
        """
        if self.messages and self.messages[-1].role == "user":
            text = f"{self.messages.pop().content}\n\n{text}"
        self.messages.append(Message("user", text))

    def close(self, request: str) -> None:
        """Add the closing request."""
        if self.messages[-1].role == "user":
            self._before_closing = len(self.messages) - 1, self.messages[-1]
        self.add_user(request)

    def add_reply(self, reply: str) -> None:
        """Add the model's reply; of a very long one, only the beginning and the end."""
        self.messages.append(
            Message("assistant", self._form.cut(reply, self._longest_reply) or "(nothing)")
        )

    def for_next_question(self, *, complete: bool) -> list[Message]:
        """The history for the next question of a session, without the closing request, which would
        apply to it too.

        Args:
            complete: Whether the question was answered, at least partially.
        """
        messages = list(self.messages)
        if self._before_closing is not None:
            at, message = self._before_closing
            messages[at] = message
        if not complete:
            Conversation(messages, window=0, compact_at=0).add_user(prompts.WITHDRAWN)
        return messages

    def compact(self) -> None:
        """Shorten older messages if the conversation approaches the window."""
        # The last message may still be replaced by a longer one
        last = max(0, len(self.messages) - 1)
        self._tokens += estimate(self.messages[self._counted : last])
        self._counted = last
        if self._tokens + estimate(self.messages[last:]) > self._most:
            self._shorten()

    def compact_after_refusal(self) -> bool:
        """Shorten the conversation after the provider has refused it as too long.

        Returns:
            Whether it is shorter now.
        """
        before = estimate(self.messages)
        self._most = min(self._most, before / 2)
        self._shorten()
        return estimate(self.messages) < before

    def _shorten(self) -> None:
        """Shorten messages until they fit: older outputs first, then older replies, then all except
        the question and the last message.

        Older replies are shortened as well unless there is room for several turns then: each time
        costs the provider's prefix cache.
        """
        self._counted = self._tokens = 0
        for messages, enough in (
            (self._of("user")[:-2], self._most * _COMPACTED),
            (self._of("assistant")[:-1], self._most),
            (self._of("user")[:-1], self._most),
            (self._of("assistant"), self._most),
        ):
            self._shorten_all(messages)
            if estimate(self.messages) <= enough:
                return
        if (last := len(self.messages) - 1) != self._question:
            others = estimate(self.messages[:last])
            room = int(self._most - others) * _CHARACTERS_PER_TOKEN
            text = self.messages[last].content
            self.messages[last] = Message(
                self.messages[last].role, prompts.cut_output(text, max(room, _SHORTENED_CHARS))
            )

    def _of(self, role: str) -> list[int]:
        """The indexes of the messages of this role, without the first user message and the
        question.
        """
        found = [at for at, message in enumerate(self.messages) if message.role == role]
        return [at for at in (found[1:] if role == "user" else found) if at != self._question]

    def _shorten_all(self, places: Iterable[int]) -> None:
        for at in places:
            role, text = self.messages[at].role, self.messages[at].content
            # In a session, a user message may be an earlier question
            is_output = role == "user" and not text.startswith(self._question_start)
            shorten = self._form.shorten if role == "assistant" else prompts.compacted_reply
            shorter = prompts.compacted(len(text)) if is_output else shorten(text, self._shortened)
            if len(text) > 2 * len(shorter):
                self.messages[at] = Message(role, shorter)
