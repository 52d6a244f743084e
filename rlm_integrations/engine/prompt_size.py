"""How many tokens a request takes."""

from collections.abc import Iterable, Sequence

from rlm_integrations._concurrency import runtime
from rlm_integrations.lm.tokens import most_tokens
from rlm_integrations.records import Message, Usage

# A token has about four characters of English, two of code, and one of Chinese, which takes three
# bytes.
_BYTES = 3
_PER_MESSAGE = 8  # tokens that a message takes beside its text
_COUNTED_OFF_LOOP = 20_000  # characters: a few milliseconds of counting


def estimate(messages: Iterable[Message]) -> int:
    """About how many tokens these messages take. It is no bound; see `most_tokens`."""
    return sum(_bytes(message.content) // _BYTES + _PER_MESSAGE for message in messages)


def bound(messages: Iterable[Message]) -> int:
    """How many tokens these messages take at most."""
    return sum(most_tokens(message.content) + _PER_MESSAGE for message in messages)


class PromptMeter:
    """Bounds the tokens of the requests of one conversation: what the provider counted of its
    beginning, and a bound of the rest.
    """

    def __init__(self) -> None:
        self._counted: tuple[Message, ...] = ()
        self._tokens = 0

    async def most_tokens(self, messages: Sequence[Message]) -> int:
        """At most so many tokens do these messages take."""
        known = len(self._counted)
        if known > len(messages) or any(
            ours is not theirs for ours, theirs in zip(self._counted, messages, strict=False)
        ):
            known = 0  # its beginning was shortened
        rest = messages[known:]
        large = sum(len(message.content) for message in rest) > _COUNTED_OFF_LOOP
        return (self._tokens if known else 0) + (
            await runtime.offload(bound, rest) if large else bound(rest)
        )

    def count(self, messages: Sequence[Message], usage: Usage | None) -> None:
        """Take note of what the provider counted of these messages."""
        if usage is not None:
            self._counted, self._tokens = tuple(messages), usage.input_tokens


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
