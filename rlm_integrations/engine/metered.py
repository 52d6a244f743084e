"""A model whose attempts are counted against a run's budget."""

from rlm_integrations.engine.budget import Purse, Reservation
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.base import LM, Prepared
from rlm_integrations.lm.tokens import credible
from rlm_integrations.records import Completion, Request

# Failures for which no provider counts tokens: the request was not taken, or never came to the
# model.
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
    """A model as one call asks it: every try is reckoned with, and none is made that the budget
    does not bear.
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
        if self._reservation.uncounted and not self._purse.allows_another_try(self._reservation):
            raise ModelError("the run's budget bears no further try", type="budget")
        self._reservation.uncounted += 1
        try:
            completion = await self._lm.complete(request)
        except ModelError as error:
            self._reservation.uncounted -= error.type in _NOT_COUNTED or not error.sent
            raise
        answer: object = completion  # a model of the user's may return anything
        if (
            isinstance(answer, Completion)
            and credible(answer.usage, request, answer.text) is not None
        ):
            self._reservation.uncounted -= 1
        return completion
