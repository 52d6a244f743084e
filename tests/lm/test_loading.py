"""Loading a provider's SDK, which takes seconds, can be interrupted, and does not count towards a
call.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlm_integrations import RLM, Budget, Limits, allm_batch
from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations.errors import ModelError
from rlm_integrations.records import Completion, LLMError, Request, Usage
from tests._script import run_script

# Not by print: the interpreter's end would fail if the loading thread still held the lock of stdout
LOADING = "import os, time\nos.write(1, b'loading\\n')\ntime.sleep(600)\n"
APIS = {
    "stream": "for event in RLM(lm).stream('q', 't'): pass",
    "completion": "RLM(lm).completion('q', 't')",
    "batch": "llm_batch(['a', 'b'], lm)",
    "batch_iter": "for reply in llm_batch_iter((str(n) for n in range(9)), lm): pass",
    "asyncio": "import asyncio; asyncio.run(RLM(lm).acompletion('q', 't'))",
    "dropped": "import asyncio; asyncio.run(allm_batch(['a'], OpenAILM('m', base_url='http://127.0.0.1:9/v1', transport='sdk')))",
}


@pytest.mark.parametrize("api", APIS)
def test_ctrl_c_while_the_sdk_is_loaded(api: str, tmp_path: Path) -> None:
    """Ctrl-C during a slow import ends the process with KeyboardInterrupt and no further output."""
    (tmp_path / "openai.py").write_text(LOADING)
    program = f"from rlm_integrations import *\nlm = OpenAILM('m', base_url='http://127.0.0.1:9/v1', transport='sdk')\n{APIS[api]}"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "never retrieved" not in errors
    assert "already running" not in errors


class Loads:
    """A model whose client takes longer to load than a call may take."""

    name, context_window = "loads", None

    def __init__(self, wrong: Exception | None = None) -> None:
        self.prepared = 0
        self._wrong = wrong

    async def prepare(self) -> None:
        self.prepared += 1
        await asyncio.sleep(0.05)
        if self._wrong is not None:
            raise self._wrong

    async def complete(self, request: Request) -> Completion:
        return Completion(
            "```repl\nFINAL('done')\n```" if request.role == "root" else "fine", Usage(1, 1)
        )


@pytest.mark.parametrize("budget", [None, Budget(max_tokens=100_000)])
async def test_preparation_does_not_count_towards_the_timeout(budget: Budget | None) -> None:
    """Preparation does not count towards a call's timeout, in runs with and without a budget, and
    in batches.
    """
    result = await RLM(lm := Loads(), limits=Limits(call_seconds=0.01), budget=budget).acompletion(
        "q", "t"
    )
    assert (result.answer, lm.prepared) == ("done", 2)  # for the run, and for its call
    assert await allm_batch(["a", "b"], lm, timeout=0.01) == ["fine", "fine"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (ModelError("no client", type="input"), "no client"),
        (OSError("no disk"), "OSError: no disk"),
    ],
)
async def test_a_failed_preparation(wrong: Exception, told: str) -> None:
    """A failed preparation is an error in the slot of the call."""
    (reply,) = await allm_batch(["a"], Loads(wrong))
    assert isinstance(reply, LLMError)
    assert told in reply


async def test_a_resource_dropped_while_it_is_made_leaks_nothing() -> None:
    """If the waiting task is cancelled and the owner is collected while a resource is being made,
    its generator ends without an error.
    """
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context)
    )
    go = threading.Event()
    owner = PerLoop(go.wait, lambda _: asyncio.sleep(0))
    task = asyncio.create_task(owner.get())
    await asyncio.sleep(0)
    (entry,) = owner._entries.values()
    task.cancel()
    await asyncio.wait([task])
    del owner, task
    gc.collect()
    entry._start_to_end()  # as a timer does
    assert entry.ending is not None
    await entry.ending
    go.set()
    assert (complaints, entry.opening.cancelled()) == ([], True)


def test_no_call_meets_a_module_that_another_thread_imports() -> None:
    """Openai looks for httpx2 in `sys.modules` at each call, and the price list imports it: if it is
    installed, it is loaded before the first call.
    """
    code = (
        "import importlib.util, sys\n"
        "import rlm_integrations.lm.openai.transport\n"
        "print('httpx2' in sys.modules or importlib.util.find_spec('httpx2') is None)"
    )
    assert run_script(code).stdout == "True\n"
