"""Which parameter bounds a reply at an OpenAI-compatible server."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rlm_integrations.records import BOUND, Request

OLD = "max_tokens"
NAMES = (BOUND, OLD)
# OpenAI and Azure OpenAI: they refuse both names at once, and the old one for reasoning models.
_OPENAI = (".openai.com", ".openai.azure.com", ".cognitiveservices.azure.com")


class ReplyBound:
    """Writes the budget's bound on a reply into the parameters of a request.

    A user's own bound, in the parameters of the model, keeps its name, and the smaller of both is
    sent. Otherwise OpenAI gets `max_completion_tokens`. Other servers may know only the older
    `max_tokens` (Ollama, llama-cpp-python) and ignore the other: they get both, until they refuse
    one.

    Args:
        base_url: The address of the server.
        params: The user's parameters for every call.
    """

    __slots__ = ("_names", "_own", "_refused")

    def __init__(self, base_url: str, params: Mapping[str, Any]) -> None:
        self._own = {name: params[name] for name in NAMES if type(params.get(name)) is int}
        host = f".{urlsplit(base_url).hostname}"
        self._names: tuple[str, ...] = (BOUND,) if host.endswith(_OPENAI) else NAMES
        self._refused: set[tuple[str, ...]] = set()

    @property
    def own(self) -> int | None:
        """The user's own bound."""
        return min(self._own.values(), default=None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a bound is currently sent."""
        return tuple(self._own) or self._names

    def written(self, params: Mapping[str, Any], request: Request) -> dict[str, Any]:
        """The parameters with the smallest bound of all if the budget has one; otherwise
        unchanged.
        """
        if request.reply_tokens is None:
            return dict(params)
        given = [params[name] for name in NAMES if type(params.get(name)) is int]
        rest = {name: value for name, value in params.items() if name not in NAMES}
        return {
            **rest,
            **dict.fromkeys(self.names, min([request.reply_tokens, *self._own.values(), *given])),
        }

    def learn(self, refused: tuple[str, ...], message: str) -> bool:
        """Note that a server refused a request with these names; True if a retry with others may
        help.
        """
        if self._own or not any(name in message for name in NAMES):
            return False
        if self._names != refused:  # another call has learned it meanwhile
            return True
        self._refused.add(refused)
        is_new_refused = BOUND in message and OLD not in message.replace(BOUND, "")
        order = [(OLD,), (BOUND,)] if is_new_refused else [(BOUND,), (OLD,)]
        left = [names for names in order if names not in self._refused]
        self._names = left[0] if left else self._names
        return bool(left)
