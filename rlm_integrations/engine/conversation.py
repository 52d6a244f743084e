"""The conversation with a root model, kept within its window: what is old is shortened, once, and
stays so.
"""

from collections.abc import Iterable, Sequence

from rlm_integrations.engine import prompts
from rlm_integrations.engine.prompt_size import estimate
from rlm_integrations.records import Message

_CHARACTERS_PER_TOKEN = 3
# Characters of an old reply that stay, at most; of all of them together about as many as fit into
# the window
_SHORTENED = 300
_REPLIES = 200  # as many as a long run has


class Conversation:
    """The messages of one run. They are only appended to, until they near the window: then a
    provider's prefix cache is lost once.

    Args:
        messages: Where they are kept.
        window: Tokens that the model reads at once.
        compact_at: The part of the window beyond which older messages are shortened.
    """

    def __init__(self, messages: list[Message], *, window: int, compact_at: float) -> None:
        self.messages = messages
        self._most = window * compact_at
        self._longest_reply = int(window * compact_at * _CHARACTERS_PER_TOKEN / 4)  # characters
        self._shortened = min(
            _SHORTENED, int(window * compact_at * _CHARACTERS_PER_TOKEN / _REPLIES)
        )
        self._question = 0  # where the question is
        # The message that the request for a last answer went to
        self._before_closing: tuple[int, Message] | None = None

    def begin(self, history: Sequence[Message], question: str) -> None:
        """Ask a question, after what was said before it."""
        self.messages[:] = history
        self.tell(question)
        self._question = len(self.messages) - 1

    def tell(self, text: str) -> None:
        """Add to the conversation as user; two messages in a row become one, because many providers
        want turns.
        """
        if self.messages and self.messages[-1].role == "user":
            text = f"{self.messages.pop().content}\n\n{text}"
        self.messages.append(Message("user", text))

    def close(self, request: str) -> None:
        """Ask for the last answer."""
        if self.messages[-1].role == "user":
            self._before_closing = len(self.messages) - 1, self.messages[-1]
        self.tell(request)

    def take(self, reply: str) -> None:
        """Add what the model said; of an endless reply its beginning and its end."""
        self.messages.append(
            Message("assistant", prompts.cut_output(reply, self._longest_reply) or "(nothing)")
        )

    def for_next_question(self, *, complete: bool) -> list[Message]:
        """What the next question of a session follows: without the request for a last answer, which
        would hold for it too.

        Args:
            complete: Whether the question was answered, as well as it could be.
        """
        messages = list(self.messages)
        if self._before_closing is not None:
            at, message = self._before_closing
            messages[at] = message
        if not complete:
            Conversation(messages, window=0, compact_at=0).tell(prompts.WITHDRAWN)
        return messages

    def compact(self) -> None:
        """Shorten older messages if the conversation nears the window."""
        if estimate(self.messages) > self._most:
            self._shorten()

    def compact_after_refusal(self) -> bool:
        """Shorten what can be shortened, because the provider says that the window is smaller.

        Whether anything was.
        """
        before = estimate(self.messages)
        self._most = min(self._most, before / 2)
        self._shorten()
        return estimate(self.messages) < before

    def _shorten(self) -> None:
        """Older outputs first, then older replies, then all but the question and the last message,
        until it fits.
        """
        for messages in (
            self._of("user")[:-2],
            self._of("assistant")[:-1],
            self._of("user")[:-1],
            self._of("assistant"),
        ):
            self._shorten_all(messages)
            if estimate(self.messages) <= self._most:
                return
        if (last := len(self.messages) - 1) != self._question:
            others = estimate(self.messages[:last])
            room = int(self._most - others) * _CHARACTERS_PER_TOKEN
            text = self.messages[last].content
            self.messages[last] = Message(
                self.messages[last].role, prompts.cut_output(text, max(room, _SHORTENED))
            )

    def _of(self, role: str) -> list[int]:
        """Where the messages of this role are, but for the task: the first message of the user, and
        the question.
        """
        found = [at for at, message in enumerate(self.messages) if message.role == role]
        return [at for at in (found[1:] if role == "user" else found) if at != self._question]

    def _shorten_all(self, places: Iterable[int]) -> None:
        for at in places:
            role, text = self.messages[at].role, self.messages[at].content
            # Of a session, an earlier one
            is_output = role == "user" and not text.startswith("Question: ")
            shorter = (
                prompts.compacted(len(text))
                if is_output
                else prompts.compacted_reply(text, self._shortened)
            )
            if len(text) > 2 * len(shorter):
                self.messages[at] = Message(role, shorter)
