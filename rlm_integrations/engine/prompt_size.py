"""The number of tokens in a request."""

from collections.abc import Iterable, Sequence

from rlm_integrations._concurrency import runtime
from rlm_integrations.lm.tokens import most_tokens
from rlm_integrations.records import Message, Usage

# A token has about four characters of English, two of code, and one of Chinese, which has three
# bytes.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8  # in addition to its text
_OFF_LOOP_CHARS = 20_000  # longer messages are counted in a thread: a few milliseconds


def estimate(messages: Iterable[Message]) -> int:
    """The approximate number of tokens of messages. It is not a maximum; see `bound`."""
    return sum(
        _bytes(message.content) // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE for message in messages
    )


def bound(messages: Iterable[Message]) -> int:
    """The maximum number of tokens of messages."""
    return sum(most_tokens(message.content) + _TOKENS_PER_MESSAGE for message in messages)


class PromptMeter:
    """Computes the maximum number of tokens in the requests of one conversation: the provider's
    count for its beginning, and a maximum for the rest.
    """

    def __init__(self) -> None:
        self._counted: tuple[Message, ...] = ()
        self._tokens = 0

    async def most_tokens(self, messages: Sequence[Message]) -> int:
        """The maximum number of tokens of messages."""
        known = len(self._counted)
        if known > len(messages) or any(
            ours is not theirs for ours, theirs in zip(self._counted, messages, strict=False)
        ):
            known = 0  # its beginning was shortened
        rest = messages[known:]
        large = sum(len(message.content) for message in rest) > _OFF_LOOP_CHARS
        return (self._tokens if known else 0) + (
            await runtime.offload(bound, rest) if large else bound(rest)
        )

    def count(self, messages: Sequence[Message], usage: Usage | None) -> None:
        """Store the provider's count for messages."""
        if usage is not None:
            self._counted, self._tokens = tuple(messages), usage.input_tokens


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
