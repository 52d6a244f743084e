"""A stand-in for a model provider, over real sockets on loopback: OpenAI's, Anthropic's and
Gemini's APIs, configurable faults, and a record.

Three forms, one surface. Each takes a `Settings` or its fields, and gives a `StandIn` (or a
`RemoteStandIn` with the same methods):

    async with serve(latency=0.05, faults=[Fault("rate_limit", rate=0.1)]) as server:    # on the
    test's own loop with serve_in_thread(settings) as server:
        # on a loop in a thread of its own with serve_in_process(settings) as server:
                                   # in its own process: its CPU is not the caller's

    server.base_url              "http://127.0.0.1:PORT/v1"
    server.change(latency=0.2)   other settings from now on; those not named stay
    server.stats()               Stats: calls, in_flight, most_in_flight, aborted, bytes_in,
    bytes_out, connections server.calls()               list of Call, one per chat completion asked,
    in order of arrival; times are time.monotonic(), comparable
                                 between processes
    server.requests()            list of Kept (number, headers, body, path) where
    `keep_requests=True` server.reset()               all counts, records and fault schedules start
    again; calls get their numbers from 0

It answers, plain and streamed, what the address says:

    POST /v1/chat/completions                                OpenAI
    POST /v1/messages                                        Anthropic; its clients take the address
    without "/v1" POST /v1beta/models/NAME:generateContent                 Gemini; likewise
    (tests/lm/_foreign.py has a client of each class) POST
    /v1beta/models/NAME:streamGenerateContent?alt=sse GET  /v1/models, /v1beta/models,
    /v1beta/models/NAME

It redirects what is under `/moved/` to the same path without it, and stands for any host as a
proxy. Scripts, faults, counts and records are the same for all: an `Ask` holds the request in
OpenAI's words (messages with the roles system, user, assistant, and the bound as
`max_completion_tokens`), and a `Kept` holds it as it came. A kind of fault that a wire has no form
for is a 400 that says so. Unless a script says otherwise, the answer to a prompt (the content of
the last message) is `answer_to(prompt)`, so a test can tell a right answer from another prompt's.

    Settings.scripts = {"root-model": ["first reply", Reply("second", finish_reason="length")]}
    # by model name; other models echo Settings.scripts = {"agent": [Reply(None, "tool_calls",
    tool_calls=[("ask", {"question": "Why?"})]), "It is so."]} Settings.scripts = {"root-model":
    function}                                                      # Ask -> str | Reply

A list is indexed by the number of assistant messages in the request, so runs side by side and
retries each get the right reply. A function that raises is a 500 that says so; in the process form
it is given as "module:function".

    Fault(kind, rate=0.1)             of every 100 calls exactly ten, in a seeded order; rates are
    whole per cents and share one deck Fault(kind, at=(0, 5))            the calls of these numbers
    Fault(kind, match="needle")       calls whose prompt holds this text
    Fault(kind, …, times=2)           at most twice;  Fault("rate_limit", …, retry_after=1)  with
    that header

Kinds: see `FaultKind`. `Settings` says the rest, field by field.
"""

from tests.standin.replies import answer_to
from tests.standin.run import RemoteStandIn, serve, serve_in_process, serve_in_thread
from tests.standin.server import StandIn
from tests.standin.settings import Ask, Fault, FaultKind, Reply, Settings
from tests.standin.stats import Call, Kept, Stats

__all__ = [
    "Ask",
    "Call",
    "Fault",
    "FaultKind",
    "Kept",
    "RemoteStandIn",
    "Reply",
    "Settings",
    "StandIn",
    "Stats",
    "answer_to",
    "serve",
    "serve_in_process",
    "serve_in_thread",
]
