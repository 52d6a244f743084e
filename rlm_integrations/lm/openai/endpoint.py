"""What the clients of one model call, and how."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Transport = Literal["aiohttp", "sdk"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model at an address.

    Attributes:
        model: The provider's name for the model.
        base_url: The address of the API.
        key: The key, or "" to send none.
        transport: "aiohttp", or "sdk" for the SDK and its default transport.
        timeout: Seconds that a call may take, and in a stream the next piece, or None.
        client: The user's client of the SDK, or None.
    """

    model: str
    base_url: str
    key: str = field(repr=False)
    transport: Transport
    timeout: float | None
    client: "AsyncOpenAI | None" = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """The model in messages."""
        return f"{self.model!r} at {self.base_url}"

    @property
    def url(self) -> str:
        """The address of the requests; a user's client may have another."""
        return f"{self.base_url}/chat/completions"
