"""Retries of a call: by kind of failure, as the user configures them, and what is shown
meanwhile.
"""

import sys

import pytest

from rlm_integrations import RLM, OpenAILM, Retry, llm_batch
from rlm_integrations.errors import InputError
from rlm_integrations.events import CallRetried, Event
from rlm_integrations.records import Completion, Request
from tests.engine.conftest import Scripted, code, final
from tests.standin import Fault, StandIn, serve_in_thread

QUICK = Retry(first_delay=0.001, longest_delay=0.002)


@pytest.mark.parametrize("fault", ["null_content", "empty_choices", "truncated"])
def test_an_unusable_reply_is_retried_twice(fault: str) -> None:
    """An unusable reply is retried at most twice by default, because each one may be charged."""
    with serve_in_thread(faults=[Fault(fault)]) as server:  # type: ignore[arg-type]
        lm = OpenAILM("m", base_url=server.base_url, api_key="a-key")
        (reply,) = llm_batch(["p"], lm)
        assert server.stats().calls == 3
    assert reply.type == ("empty" if fault == "null_content" else "bad_response")
    assert reply.retries == 2


@pytest.mark.parametrize(
    ("retry", "calls"), [(Retry(failures=0), 1), (Retry(failures=4, first_delay=0.001), 5)]
)
async def test_a_run_uses_the_users_retry(server: StandIn, retry: Retry, calls: int) -> None:
    """`RLM(retry=…)` applies to sub-calls and to the root's own calls."""
    server.change(faults=[Fault("server", match="p")])
    sub = OpenAILM("sub", base_url=server.base_url, api_key="a-key")
    rlm = RLM(
        Scripted([code("r = llm_query('p')"), final("[r.type, r.retries]")]), sub, retry=retry
    )
    assert (await rlm.acompletion("What?", "a text")).answer == f'["server", {calls - 1}]'
    assert server.stats().calls == calls
    assert rlm.replace(max_iterations=3).options["retry"] is retry


def test_a_retry_of_another_type_is_refused() -> None:
    """The message names the option and the type."""
    with pytest.raises(InputError, match="retry must be a Retry, not int"):
        RLM("offline", retry=3)  # type: ignore[arg-type]


def test_a_batch_shows_that_it_waits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress bar of a batch shows that a call is being retried, and why; events report it
    too.
    """
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    events: list[Event] = []
    with serve_in_thread(faults=[Fault("server", times=2)]) as server:
        lm = OpenAILM("m", base_url=server.base_url, api_key="a-key")
        llm_batch(["p"], lm, retry=QUICK, show_progress=True, on_event=events.append)
    assert "1 retried (server)" in capsys.readouterr().err
    assert sum(isinstance(event, CallRetried) for event in events) == 2


HALF = "Look \ud83d here."


class Halves:
    """Sends half of a surrogate pair, like servers that split tokens inside an emoji."""

    name, context_window = "halves", None

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        [message.content.encode() for message in request.messages]
        return Completion(
            HALF + "\n```repl\nprint(1)\n```"
            if len(self.requests) == 1
            else final("'done \ud83d\ude00'")
        )


async def test_half_of_a_surrogate_pair_in_a_reply_is_replaced() -> None:
    """Half of a surrogate pair in a reply is replaced, so that the next turn can be sent; two
    halves that belong together become their character.
    """
    lm = Halves()
    result = await RLM(lm).acompletion("What?", "a text")
    assert (result.answer, result.stop_reason) == ("done 😀", "final")
    assert result.trajectory[0].reply.startswith("Look \ufffd here.")


async def test_half_of_a_surrogate_pair_in_a_question_is_refused() -> None:
    """Half of a surrogate pair in a question is refused before any call, with its position."""
    with pytest.raises(
        InputError, match="the question has half of a surrogate pair at character 5"
    ):
        await RLM(Scripted()).acompletion("What \ud83d?", "a text")
