"""Sessions that are resumed: their variables and messages are brought back from their records, and
nothing is asked again.
"""

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from rlm_integrations import RLM, InputError, RunBusyError
from rlm_integrations.records import Completion, Message, Request
from rlm_integrations.storage import Storage
from tests._forked import Forked
from tests.engine.conftest import code, soon
from tests.standin import Fault, serve_in_thread
from tests.storage._session import DOCUMENT, rlm_of, script_of


def test_a_killed_session_is_resumed(tmp_path: Path) -> None:
    """Its process is killed with -9 in the third question. Another process answers that question
    with the variables of the first two, and then a fourth one; no answered call is made again.
    """
    folder = tmp_path / "runs"
    with serve_in_thread(
        scripts={"stand-in": script_of},
        faults=[Fault("hang", match="the last one")],
        keep_requests=True,
    ) as provider:
        process = Forked("-m", "tests.storage._session", provider.base_url, str(folder))
        assert soon(
            lambda: (
                process.poll() is not None
                or (len(provider.calls()) == 10 and provider.stats().in_flight == 1)
            )
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        provider.change(faults=[])
        with Storage(folder) as storage:
            third, second, first = storage.runs()
            so_far = storage.run(third.run_id)
            assert (so_far.stop_reason, so_far.question) == ("interrupted", "Third?")
            assert [each.block for each in so_far.repl_history] == [4, 5]
            assert [each.status for each in so_far.repl_history] == ["ok", "interrupted"]
            rlm = rlm_of(provider.base_url, storage)
            result = rlm.resume(third.run_id)
            asked = ["one", "two", "three", "four", "the last one"]
            assert json.loads(str(result.answer)) == [f"re: {each}" for each in asked]
            with rlm.resume_session(third.run_id) as chat:
                assert json.loads(str(chat.completion("Fourth?").answer)) == [3, 2]
            assert next(run.question for run in storage.runs()) == "Fourth?"
            assert rlm.resume(first.run_id).run_id != rlm.resume(second.run_id).run_id
        requests = provider.requests()
        answered = Counter(
            json.dumps(requests[call.number].body["messages"])
            for call in provider.calls()
            if call.status == 200 and not call.aborted
        )
        assert set(answered.values()) == {1}
        assert len(answered) == 5 + 2 + 1 + 2 + 1


class Model:
    """As root it gives the next reply to its question, as sub-model it echoes; "slow" has no answer
    until `is_fast`.
    """

    name = "model"
    context_window = None

    def __init__(self, scripts: dict[str, list[str]]) -> None:
        self.scripts = scripts
        self.calls = 0
        self.is_fast = False
        self.slow = asyncio.Event()
        self.messages: tuple[Message, ...] = ()
        self._given = Counter[str]()

    async def complete(self, request: Request) -> Completion:
        self.calls += 1
        if request.role == "root":
            self.messages = request.messages
            self._given[request.query] += 1
            return Completion(self.scripts[request.query][self._given[request.query] - 1])
        prompt = request.messages[-1].content
        if prompt == "slow" and not self.is_fast:
            self.slow.set()
            await asyncio.Event().wait()
        return Completion(f"re: {prompt}")


SCRIPTS = {
    "First?": [
        code("import random", "kept = [llm_query('one'), tool(1), random.random()]"),
        "There is no code here.",
        code("note = store.create('note', 'd', kept[0])", "FINAL('first')"),
    ],
    "Waits?": [code("early = llm_query('two')", "late = llm_query('slow')", "FINAL(late)")],
    "Fails?": [code("early += 'x'", "1 / 0")] * 20,
    "Last?": [code("FINAL([kept, early, 'late' in globals(), random.random()])")],
}


async def test_a_session_is_rebuilt_as_it_was(tmp_path: Path) -> None:
    """After questions that were answered, cancelled, and stopped by a limit, the next question finds
    the same variables and messages in the resumed session as in the session itself; also after the
    cancelled question was resumed alone. Neither a model nor a tool is called for that.
    """
    used: list[int] = []

    def tool(number: int) -> int:
        used.append(number)
        return number

    model = Model(SCRIPTS)
    with Storage(tmp_path / "runs") as storage:
        rlm = RLM(model, storage=storage, tools=[tool], max_iterations=3)
        async with rlm.session(DOCUMENT) as chat:
            assert (await chat.acompletion("First?")).answer == "first"
            waiting = asyncio.ensure_future(chat.acompletion("Waits?"))
            await model.slow.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            last = await chat.acompletion("Fails?")
            assert last.stop_reason == "max_iterations"
            calls = model.calls

            async with rlm.resume_session(last.run_id) as resumed:
                again = await resumed.acompletion("Last?")
            assert model.calls == calls + 1
            messages, model.messages = model.messages, ()
            model._given.pop("Last?")
            live = await chat.acompletion("Last?")
            assert model.messages == messages
            assert again.answer == live.answer
            assert used == [1]

        model.is_fast, model.calls = True, 0
        model._given.pop("Last?")
        (waits,) = [run for run in storage.runs() if run.question == "Waits?"]
        assert (await rlm.aresume(waits.run_id)).answer == "re: slow"
        assert model.calls == 1
        async with rlm.resume_session(last.run_id, DOCUMENT) as resumed:
            assert (await resumed.acompletion("Last?")).answer == live.answer
        assert (model.calls, used) == (2, [1])


async def test_a_question_that_computed_when_it_was_cancelled(tmp_path: Path) -> None:
    """Its code is interrupted in the replay too, and the session goes on."""
    model = Model(
        {
            "First?": [
                code(
                    "kept, begun = llm_query('one'), 1",
                    "store.create('note', 'it has begun', kept)",
                    "while True: pass",
                )
            ],
            "Last?": [code("FINAL([kept, begun])")],
        }
    )
    with Storage(tmp_path / "runs") as storage:
        rlm = RLM(model, storage=storage)
        async with rlm.session(DOCUMENT) as chat:
            asking = asyncio.ensure_future(chat.acompletion("First?"))
            while not (runs := storage.runs()) or len(storage.load(runs[0].run_id)) < 3:
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.wait([asking])
        (first,) = runs
        async with rlm.resume_session(first.run_id) as resumed:
            assert (await resumed.acompletion("Last?")).answer == '["re: one", 1]'


async def test_sessions_that_cannot_be_resumed(tmp_path: Path) -> None:
    """An unknown run, another document or model, a storage without documents, and a question that is
    being answered are errors that say so, and nothing is asked.
    """
    model = Model(SCRIPTS)
    with Storage(tmp_path / "runs", keep_documents=False) as storage:
        rlm = RLM(model, storage=storage, max_depth=2)
        with pytest.raises(InputError, match="a session is resumed from a storage"):
            await rlm.replace(storage=None).resume_session("x").acompletion("Last?")
        async with rlm.session(DOCUMENT) as chat:
            waiting = asyncio.ensure_future(chat.acompletion("Waits?"))
            await model.slow.wait()
            (run,) = storage.runs()
            with pytest.raises(RunBusyError, match="is being run by process"):
                await rlm.resume_session(run.run_id, DOCUMENT).acompletion("Last?")
            waiting.cancel()
            await asyncio.wait([waiting])
        calls = model.calls
        for session, told in (
            (rlm.resume_session("other", DOCUMENT), "there is no run 'other'"),
            (
                rlm.resume_session(run.run_id),
                "does not keep documents: pass the session's document",
            ),
            (rlm.resume_session(run.run_id, "other"), "its document is another one"),
            (rlm.replace(max_depth=1).resume_session(run.run_id, DOCUMENT), "its max_depth is 2"),
        ):
            async with session:
                with pytest.raises(InputError, match=told):
                    await session.acompletion("Last?")
        assert model.calls == calls
