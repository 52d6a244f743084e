"""A call whose attempts are counted against a run's budget."""

from functools import partial

from rlm_integrations.engine.budget import Purse, Reservation
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.base import LM
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


class MeteredCall:
    """Makes the attempts of one call of a model: it counts each, and refuses a retry that the budget
    does not cover.
    """

    def __init__(self, lm: LM, purse: Purse, reservation: Reservation) -> None:
        self._lm = lm
        self._purse = purse
        self._reservation = reservation

    async def complete(self, request: Request) -> Completion:
        """The model's answer; see `LM.complete`."""
        count = partial(self._purse.count_attempt, self._reservation)
        if self._reservation.uncounted and not self._purse.allows_retry(self._reservation):
            raise ModelError("the budget does not cover a retry of this call", type="budget")
        count(1)
        try:
            completion = await self._lm.complete(request)
        except ModelError as error:
            if error.type in _NOT_COUNTED or not error.sent:
                count(-1)
            raise
        answer: object = completion  # a user's model may return anything
        if (
            isinstance(answer, Completion)
            and credible(answer.usage, request, answer.text) is not None
        ):
            count(-1)
        return completion
