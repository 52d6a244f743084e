"""A model whose attempts are counted against a run's budget."""

from rlm_integrations.engine.budget import Purse, Reservation
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.base import LM, Prepared
from rlm_integrations.lm.tokens import credible
from rlm_integrations.records import Completion, Request

# Failures that providers do not charge for: the request was refused, or never reached the model.
_NOT_COUNTED = frozenset(
    {
        "auth",
        "bad_request",
        "context_length",
        "input",
        "not_found",
        "overloaded",
        "quota",
        "rate_limit",
        "server",
    }
)


class MeteredLM:
    """Wraps a model for one call: it counts every attempt, and refuses a retry that the budget does
    not cover.
    """

    def __init__(self, lm: LM, purse: Purse, reservation: Reservation) -> None:
        self.name = lm.name
        self.context_window = lm.context_window
        self._lm = lm
        self._purse = purse
        self._reservation = reservation

    async def prepare(self) -> None:
        """See `Prepared`."""
        if isinstance(self._lm, Prepared):
            await self._lm.prepare()

    async def complete(self, request: Request) -> Completion:
        """The model's answer; see `LM.complete`."""
        if self._reservation.uncounted and not self._purse.allows_retry(self._reservation):
            raise ModelError("the budget does not cover a retry of this call", type="budget")
        self._reservation.uncounted += 1
        try:
            completion = await self._lm.complete(request)
        except ModelError as error:
            self._reservation.uncounted -= error.type in _NOT_COUNTED or not error.sent
            raise
        answer: object = completion  # a user's model may return anything
        if (
            isinstance(answer, Completion)
            and credible(answer.usage, request, answer.text) is not None
        ):
            self._reservation.uncounted -= 1
        return completion
