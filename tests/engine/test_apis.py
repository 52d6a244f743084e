"""Every API of a run returns the same, releases everything however it is left, and emits the same
events.
"""

import asyncio
import contextvars
import inspect
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, Budget, OpenAILM, RLMResult, SharedStore
from rlm_integrations._concurrency.portal import portal
from rlm_integrations.engine.chat import Chat
from rlm_integrations.errors import BudgetExceededError, InputError, LoopError, ModelError
from rlm_integrations.events import (
    BatchStarted,
    BlockStarted,
    CallFinished,
    CallStarted,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
)
from rlm_integrations.records import Request
from tests.engine.conftest import (
    Scripted,
    check_ended,
    children,
    code,
    documents_held,
    final,
    models,
    overlong,
    soon,
)
from tests.standin import Fault, StandIn, serve_in_thread

Api = Callable[[RLM, str, object], Awaitable[RLMResult]]


async def by_astream(rlm: RLM, question: str, context: object) -> RLMResult:
    events = [event async for event in rlm.astream(question, context)]
    return last(events)


def last(events: list[Event]) -> RLMResult:
    assert isinstance(events[-1], RunFinished)
    return events[-1].result


async def by_stream_inside_a_loop(rlm: RLM, question: str, context: object) -> RLMResult:
    return last(list(rlm.stream(question, context)))


async def by_completion_inside_a_loop(rlm: RLM, question: str, context: object) -> RLMResult:
    return rlm.completion(question, context)


async def by_chat(rlm: RLM, question: str, context: object) -> RLMResult:
    async with rlm.session(context) as chat:
        return await chat.acompletion(question)


def by_sync_chat(rlm: RLM, question: str, context: object) -> RLMResult:
    with rlm.session(context) as chat:
        return chat.completion(question)


APIS: dict[str, Api] = {
    "acompletion": RLM.acompletion,
    "completion in a thread": lambda *args: asyncio.to_thread(RLM.completion, *args),
    "completion in a loop": by_completion_inside_a_loop,
    "astream": by_astream,
    "stream in a thread": lambda *args: asyncio.to_thread(lambda: last(list(RLM.stream(*args)))),
    "stream in a loop": by_stream_inside_a_loop,
    "session": by_chat,
    "sync session in a thread": lambda *args: asyncio.to_thread(by_sync_chat, *args),
    "session completion in a loop": lambda *args: asyncio.sleep(0, by_sync_chat(*args)),
}


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Api:
    return APIS[request.param]


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A provider on its own loop, for APIs that block the test's."""
    with serve_in_thread() as standin:
        yield standin


TEXT = "One fish, two fish, red fish, blue fish. " * 50
SCRIPT = [
    code("replies = llm_batch(['a', 'b'])", "print(replies)"),
    code("FINAL(replies[1], [cite('red fish')])"),
]


# The same with every API.


async def test_every_api_returns_the_same_result(api: Api, provider: StandIn) -> None:
    """Answer, citations, calls and record are the same with every API, twice in a row, over real
    HTTP.
    """
    provider.change(scripts={"root": SCRIPT})
    rlm = RLM(*models(provider.base_url, "root", "sub"))
    for _ in range(2):
        result = await api(rlm, "What fish?", TEXT)
        assert (result.stop_reason, result.iterations, result.total_calls) == ("final", 2, 4)
        assert [each.quote for each in result.citations] == ["red fish"]
        assert result.answer == result.trajectory[0].executions[0].subcalls[1].reply
        assert result.answer.startswith("answer ")
    assert provider.stats().calls == 8


async def test_every_api_raises_the_same_error(api: Api) -> None:
    """An invalid question, a failing model and a spent budget raise the same error with every API,
    with the partial result if there is one.
    """
    with pytest.raises(InputError, match="the question must be a string that is not empty"):
        await api(RLM("offline"), " ", TEXT)
    with pytest.raises(ModelError, match="returned int, not a Completion"):
        await api(RLM(Broken()), "What fish?", TEXT)
    with pytest.raises(BudgetExceededError) as caught:
        await api(
            RLM(Scripted([code("print('seen')")]), budget=Budget(max_calls=1, on_exceeded="raise")),
            "What fish?",
            TEXT,
        )
    assert caught.value.result.answer == "seen"


class Broken:
    name, context_window = "broken", None

    async def complete(self, request: Request) -> Any:
        return 5


def test_query_returns_the_answer_and_plain_turns() -> None:
    """`query` returns the answer and the turns as dicts: each has its number, its number of calls,
    and the rest of the record in JSON types.
    """
    answer, steps = RLM(Scripted(SCRIPT)).query("What fish?", TEXT)
    assert answer == "re: b"
    assert [(step["iteration"], step["subcalls"]) for step in steps] == [(1, 2), (2, 0)]
    assert steps[0]["executions"][0]["code"].startswith("replies = llm_batch")
    assert json.loads(json.dumps(steps)) == steps


def test_subcalls_count_the_calls_of_children() -> None:
    """A child run counts with the calls of its root and of its code, at every depth."""
    root = Scripted(
        {
            "grandchild?": [code("FINAL(llm_query('b'))")],
            "child?": [
                code("x = llm_batch(['a'] * 4)", "FINAL(recursive_lm('grandchild?', context))")
            ],
            "What": [code("FINAL(recursive_lm('child?', context))")],
        }
    )
    events: list[Event] = []
    _, (step,) = RLM(root, max_depth=3, on_event=events.append).query("What?", TEXT)
    assert (
        step["subcalls"]
        == sum(isinstance(event, CallStarted) for event in events) - 1
        == 1 + 4 + 1 + 1
    )


@pytest.mark.parametrize(
    ("made_with", "asked_with", "shown"),
    [(False, True, True), (True, False, False), (True, None, True)],
)
def test_query_takes_verbose(
    made_with: bool, asked_with: bool | None, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """`query(…, verbose=True)` prints the turns of this run; by default the RLM's setting applies.
    Hooks are kept.
    """
    events: list[Event] = []
    rlm = RLM(Scripted(SCRIPT), verbose=made_with, on_event=events.append)
    answer, _ = (
        rlm.query("What fish?", TEXT)
        if asked_with is None
        else rlm.query("What fish?", TEXT, verbose=asked_with)
    )
    assert answer == "re: b"
    assert ("Turn 2" in capsys.readouterr().err) == shown
    assert isinstance(events[-1], RunFinished)


async def test_aquery_is_the_async_form() -> None:
    """`aquery` returns the same on the caller's loop."""
    assert (await RLM(Scripted(SCRIPT)).aquery("What fish?", TEXT))[0] == "re: b"


async def test_the_sync_api_from_many_threads() -> None:
    """Sixteen threads get their own answers from one RLM and one model."""
    root = Scripted([code("FINAL(llm_query(context))")])
    rlm = RLM(root)
    results = await asyncio.gather(
        *(asyncio.to_thread(rlm.completion, "What?", f"text {n}") for n in range(16))
    )
    assert [result.answer for result in results] == [f"re: text {n}" for n in range(16)]


async def test_the_sync_api_keeps_context_variables() -> None:
    """The caller's context variables, such as a trace, are visible in its model calls."""
    tenant = contextvars.ContextVar("tenant", default="nobody")
    rlm = RLM(Scripted([code("FINAL(llm_query('p'))")], lambda _request: tenant.get()))
    tenant.set("me")
    assert rlm.completion("What?", TEXT).answer == "me"
    assert last(list(rlm.stream("What?", TEXT))).answer == "me"


async def test_a_sync_call_on_the_portal_is_an_error() -> None:
    """A synchronous call on the portal would wait for itself: the error says to await instead."""

    async def inside() -> str:
        return RLM(Scripted([final("1")])).completion("What?", TEXT).answer

    with pytest.raises(LoopError, match="await the async form"):
        await asyncio.to_thread(portal().run, inside())


def test_two_event_loops_in_a_row(provider: StandIn) -> None:
    """One RLM works with two `asyncio.run` and a sync call between them: every answer is right, no
    call is made twice.
    """
    provider.change(scripts={"root": SCRIPT})
    rlm = RLM(*models(provider.base_url, "root", "sub"))
    answers = [
        asyncio.run(rlm.acompletion("What?", TEXT)).answer,
        rlm.completion("What?", TEXT).answer,
    ]
    answers.append(asyncio.run(rlm.acompletion("What?", TEXT)).answer)
    assert len(set(answers)) == 1
    assert provider.stats().calls == 12


PUBLIC = [
    (kind, name)
    for kind in (RLM, Chat, RLMResult, OpenAILM, SharedStore)
    for name in vars(kind)
    if not name.startswith("_")
]


@pytest.mark.parametrize(
    ("kind", "name"),
    [each for each in PUBLIC if callable(getattr(*each))],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_every_method_has_its_own_docstring(kind: type, name: str) -> None:
    """Each method has its own complete docstring."""
    said = inspect.getdoc(getattr(kind, name)) or ""
    assert len(said) > 20
    assert not said.startswith("The same")


# Events.


async def test_events_are_in_order() -> None:
    """Each start event has an end event with the same id, inside its run, at increasing times;
    `RunFinished` is last.
    """
    streamed = [event async for event in RLM(Scripted(SCRIPT)).astream("What?", TEXT)]
    kinds = [
        type(event).__name__
        for event in streamed
        if type(event).__name__.startswith(("Run", "Turn", "Block"))
    ]
    turn = ["TurnStarted", "BlockStarted", "BlockFinished", "TurnFinished"]
    assert kinds == ["RunStarted", *turn, *turn, "RunFinished"]
    started = {event.id for event in streamed if isinstance(event, CallStarted)}
    assert started == {event.id for event in streamed if isinstance(event, CallFinished)}
    assert len(started) == 4
    (batch,) = [event for event in streamed if isinstance(event, BatchStarted)]
    assert batch.parent == streamed[0].id
    calls = [event for event in streamed if isinstance(event, CallStarted | CallFinished)]
    assert [event.parent for event in calls] == [streamed[0].id] * 2 + [batch.id] * 4 + [
        streamed[0].id
    ] * 2
    assert [event.at for event in streamed] == sorted(event.at for event in streamed)


def raises(_event: Event) -> None:
    raise RuntimeError("a hook's own fault")


async def test_exceptions_of_on_event_never_break_a_run(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that raises on every event changes nothing, and is logged once."""
    result = await api(RLM(Scripted(SCRIPT), on_event=raises), "What fish?", TEXT)
    assert (result.answer, result.stop_reason) == ("re: b", "final")
    assert caplog.text.count("further errors of this hook are not logged") == 1


def test_a_hook_must_be_callable() -> None:
    """A hook that is not callable is refused at once."""
    with pytest.raises(InputError, match="on_event"):
        RLM("offline", on_event="print")


async def test_the_last_event_of_a_failed_run() -> None:
    """The last event of a failed run is RunFailed, and a stream raises after it."""
    events: list[Event] = []
    with pytest.raises(ModelError):
        async for event in RLM(Broken()).astream("What?", TEXT):
            events.append(event)  # noqa: PERF401 - what came before the error counts
    assert isinstance(events[-1], RunFailed)
    assert events[-1].id == events[0].id


# Leaving early.


class Stage:
    """A run that can be left at any of its stages: its sub-calls, blocks and children last
    forever.
    """

    STAGES = ("opening", "root call", "block", "sub-calls", "child", "child's sub-call", "tool")

    def __init__(self, base_url: str, stage: str) -> None:
        self.stage = stage
        self.is_reached = False
        self.reached = asyncio.Event()
        self.events: list[Event] = []
        self.loop = asyncio.get_running_loop()
        hang = code("print(llm_batch(['hang', 'hang', 'hang']))")
        first = {
            "block": code("while True: pass"),
            "sub-calls": hang,
            "child": code("recursive_batch([{'query': 'child', 'context': 'x'}] * 3)"),
            "child's sub-call": code("recursive_batch([{'query': 'child', 'context': 'x'}] * 3)"),
            "tool": code("never()"),
        }.get(stage, final("1"))
        self.scripts = {
            "root": lambda ask: (
                hang
                if "child" in str(ask.body["messages"][1]) and stage == "child's sub-call"
                else first
            )
        }
        self.rlm = RLM(
            *models(base_url, "root", "sub"), max_depth=2, on_event=self.note, tools=[never]
        )

    def note(self, event: Event) -> None:
        self.events.append(event)
        reached = {
            "opening": isinstance(event, RunStarted),
            "root call": isinstance(event, CallStarted),
            "block": isinstance(event, BlockStarted),
            "sub-calls": isinstance(event, CallStarted) and event.request.role == "sub",
            "child": isinstance(event, RunStarted) and event.depth == 1,
            "child's sub-call": isinstance(event, CallStarted) and event.request.depth == 2,
            "tool": isinstance(event, BlockStarted),
        }[self.stage]
        if reached:
            self.is_reached = True
            self.loop.call_soon_threadsafe(self.reached.set)

    def check(self) -> None:
        """Check that every start event has an end event."""
        assert check_ended(self.events) == "cancelled"


async def never() -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def stage(provider: StandIn, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """The run at its stage; after the test, no process, open call or descriptor is left."""
    made = Stage(provider.base_url, request.param)
    provider.change(
        scripts=made.scripts,
        faults=[
            Fault("hang", match="root" if request.param in {"opening", "root call"} else "hang")
        ],
    )
    yield made
    assert soon(lambda: not children())
    assert soon(lambda: provider.stats().in_flight == 0)
    made.events.clear()
    assert soon(lambda: not documents_held())


@pytest.mark.parametrize("stage", Stage.STAGES, indirect=True)
async def test_cancelling_at_any_point(stage: Stage) -> None:
    """A cancelled run ends at any stage: its calls are aborted, its processes ended, and its last
    event says so.
    """
    task = asyncio.ensure_future(stage.rlm.acompletion("root", TEXT))
    await asyncio.wait_for(stage.reached.wait(), 60)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == []
    stage.check()


@pytest.mark.parametrize("stage", Stage.STAGES, indirect=True)
async def test_closing_an_async_stream_at_any_point(stage: Stage) -> None:
    """Closing a stream cancels the run and waits for its end."""
    stream = stage.rlm.astream("root", TEXT)
    async for _ in stream:
        if stage.is_reached:
            break
    await stream.aclose()
    assert children() == []
    stage.check()


@pytest.mark.parametrize("stage", Stage.STAGES, indirect=True)
async def test_closing_a_sync_stream_at_any_point(stage: Stage) -> None:
    """The same from a thread, whether the generator is closed or dropped."""

    def leave() -> None:
        stream = stage.rlm.stream("root", TEXT)
        for _ in stream:
            if stage.is_reached:
                break
        stream.close()

    await asyncio.to_thread(leave)
    assert children() == []
    stage.check()


async def test_cancelling_at_any_moment() -> None:
    """Fifty runs cancelled at moments throughout their course leak nothing."""
    pauses = random.Random(7)

    async def pause(_request: Request) -> str:
        await asyncio.sleep(pauses.uniform(0, 0.01))
        return "p"

    rlm = RLM(
        Scripted(
            {
                "root": [
                    code("recursive_batch([{'query': 'child', 'context': 'x'}] * 2)"),
                    final("1"),
                ],
                "child": SCRIPT,
            },
            pause,
        ),
        max_depth=2,
    )
    await rlm.acompletion("root", TEXT)
    tasks = len(asyncio.all_tasks())
    for _ in range(10):
        runs = [asyncio.ensure_future(rlm.acompletion("root", TEXT)) for _ in range(5)]
        for each in runs:
            await asyncio.sleep(pauses.uniform(0, 0.03))
            each.cancel()
        await asyncio.wait(runs)
        assert all(each.cancelled() or each.exception() is None for each in runs)
        del runs, each
    assert len(asyncio.all_tasks()) == tasks
    assert soon(lambda: not children())
    assert soon(lambda: not documents_held())


async def test_cancelling_twice_leaves_nothing() -> None:
    """A second cancellation during cleanup does not leak the process."""
    rlm = RLM(Scripted([code("while True: pass")]))
    for pause in (0.0, 0.0001, 0.001, 0.005):
        blocked = asyncio.Event()
        rlm._hooks = [
            lambda event, blocked=blocked: (
                blocked.set() if isinstance(event, BlockStarted) else None
            )
        ]
        task = asyncio.ensure_future(rlm.acompletion("root", TEXT))
        await blocked.wait()
        task.cancel()
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.wait({task})
        assert soon(lambda: not children())


async def test_a_timeout_around_a_run_works() -> None:
    """`asyncio.timeout` ends a run like any coroutine."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await RLM(Scripted([code("llm_query('p')")], overlong(60))).acompletion("What?", TEXT)
    assert children() == []


def test_ctrl_c_ends_a_sync_run_at_once(provider: StandIn, tmp_path: Path) -> None:
    """KeyboardInterrupt is raised by the synchronous call, model calls are aborted, processes
    ended, and nothing is printed.
    """
    provider.change(
        scripts={"root": [code("llm_batch(['hang'] * 3)")]}, faults=[Fault("hang", match="hang")]
    )
    program = """
        import sys, time
        from rlm_integrations import RLM, OpenAILM
        from rlm_integrations._concurrency import runtime
        from tests.engine.conftest import children, soon
        model = {"base_url": sys.argv[1], "api_key": "x"}
        rlm = RLM(OpenAILM("root", **model), OpenAILM("sub", **model))
        try:
            rlm.completion("What?", "a text")
        except KeyboardInterrupt:
            print("interrupted", soon(lambda: not children()))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), provider.base_url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert soon(lambda: provider.stats().in_flight == 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted True\n", "")
    assert soon(lambda: provider.stats().in_flight == 0)


async def test_dropping_a_stream_ends_its_run() -> None:
    """A stream that is dropped without being closed ends its run."""
    root = Scripted([code("while True: pass")])
    async for event in RLM(root).astream("What?", TEXT):
        if isinstance(event, BlockStarted):
            break
    async with asyncio.timeout(60):
        while children():
            await asyncio.sleep(0.005)


async def test_a_stream_closed_after_its_end_hides_nothing() -> None:
    """Closing a stream after the last event of a run that raises is not an error, and asyncio logs
    nothing.
    """
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context)
    )
    stream = RLM(
        Scripted([code("x = 1")]), budget=Budget(max_calls=1, on_exceeded="raise")
    ).astream("What?", TEXT)
    async for event in stream:
        if isinstance(event, RunFinished):
            break
    await stream.aclose()
    assert complaints == []


# Chats.


@pytest.mark.parametrize("sync", [False, True])
async def test_a_chat_keeps_variables_and_has_a_fresh_store_for_each_question(sync: bool) -> None:
    """Variables and messages of earlier questions are kept; each question's result has its own
    store.
    """
    root = Scripted(
        [
            code("x = 20", "store.create('note', 'first', 'c')", "FINAL(x)"),
            code("FINAL([x + 22, len(store.search())])"),
            final("context[:8]"),
        ]
    )
    chat = RLM(root).session(TEXT)
    questions = ("First?", "Second?", "Third?")
    results = [
        await (asyncio.to_thread(chat.completion, each) if sync else chat.acompletion(each))
        for each in questions
    ]
    await (asyncio.to_thread(chat.close) if sync else chat.aclose())
    assert [result.answer for result in results] == ["20", "[42, 0]", "One fish"]
    assert [len(result.store) for result in results] == [1, 0, 0]
    assert [result.iterations for result in results] == [1, 1, 1]
    assert all(question in str(root.requests[2].messages) for question in questions)
    assert [message.role for message in root.requests[2].messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert children() == []


async def test_a_chat_continues_after_a_cancelled_question() -> None:
    """The next question uses the same REPL with its variables: a cancelled block is interrupted."""
    root = Scripted(
        [code("x = 1", "FINAL(x)"), code("while True: pass"), code("FINAL('x' in globals())")]
    )
    turns = iter(range(3))
    root._next = lambda request: root._script[next(turns)]  # type: ignore[method-assign] # a cancelled question leaves no reply
    running = asyncio.Event()
    rlm = RLM(
        root,
        on_event=lambda event: (
            running.set() if isinstance(event, BlockStarted) and "while" in event.code else None
        ),
    )
    async with rlm.session(TEXT) as chat:
        assert (await chat.acompletion("First?")).answer == "1"
        task = asyncio.ensure_future(chat.acompletion("Second?"))
        await running.wait()
        task.cancel()
        await asyncio.wait({task})
        assert (await chat.acompletion("Third?")).answer == "true"


async def test_questions_of_a_chat_at_the_same_time_take_turns() -> None:
    """Two concurrent questions are answered one after the other, in one REPL."""
    root = Scripted([code("seen = [*globals().get('seen', []), 1]", "FINAL(len(seen))")] * 3)
    async with RLM(root).session(TEXT) as chat:
        results = await asyncio.gather(*(chat.acompletion(f"Question {n}?") for n in range(3)))
    assert [result.answer for result in results] == ["1", "2", "3"]


async def test_a_chat_says_where_it_cannot_be_used() -> None:
    """Using a chat on another loop, or after it was closed, is an error."""
    chat = RLM(Scripted([final("1"), final("2")])).session(TEXT)
    await chat.acompletion("First?")
    for elsewhere in (lambda: chat.completion("Second?"), chat.close):
        with pytest.raises(InputError, match="began on another event loop"):
            elsewhere()
    await chat.aclose()
    await chat.aclose()
    with pytest.raises(InputError, match="is closed"):
        await chat.acompletion("Third?")


async def test_closing_a_chat_ends_its_question() -> None:
    """Closing a chat from another task does not wait for its answer."""
    running = asyncio.Event()
    rlm = RLM(
        Scripted([code("while True: pass")]),
        on_event=lambda event: running.set() if isinstance(event, BlockStarted) else None,
    )
    chat = rlm.session(TEXT)
    task = asyncio.ensure_future(chat.acompletion("First?"))
    await running.wait()
    async with asyncio.timeout(60):
        await chat.aclose()
        await asyncio.wait({task})
    assert isinstance(task.exception(), InputError)
    assert children() == []


# Leaks.


async def test_no_thread_and_no_task_is_left() -> None:
    """After runs with several APIs there are as many threads and tasks as before."""
    rlm = RLM(Scripted(SCRIPT))
    await rlm.acompletion("What?", TEXT)
    await asyncio.to_thread(rlm.completion, "What?", TEXT)
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for _ in range(5):
        await rlm.acompletion("What?", TEXT)
        rlm.completion("What?", TEXT)
    assert len(asyncio.all_tasks()) == tasks
    # The library's own few threads are started as they are needed
    assert threading.active_count() <= threads + 3
    assert len(asyncio.all_tasks(portal().loop)) == 0
    assert os.getpid() == int(Path("/proc/self/stat").read_text().split()[0])
