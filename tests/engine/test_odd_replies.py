"""Replies and answers that could crash the process that parses them, or break the terminal that
shows them.
"""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations._concurrency import runtime
from tests.engine.conftest import Scripted, code, final, run

DEEP = [
    "-" * 3_000 + "1",
    "not " * 3_000 + "1",
    "lambda: " * 3_000 + "1",
    "1 if 1 else " * 3_000 + "1",
    "x" + ".x" * 3_000,
    "a = " * 3_000 + "1",
]


def test_deep_code_does_not_end_a_process_whose_threads_have_small_stacks() -> None:
    """Python's parser recurses in C: with stacks of 256 KB, three thousand signs would crash the
    user's process.
    """
    program = textwrap.dedent(
        f"""
        import sys, threading
        threading.stack_size(256 << 10)
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from rlm_integrations import RLM
        from tests.engine.conftest import Scripted, code, final
        deep = {DEEP!r}
        replies = [code(each) for each in deep] + ["FINAL(" + each + ")" for each in deep[:2]]
        result = RLM(Scripted([*replies, final("'alive'")]), max_iterations=20).completion("What?", "text")
        print(result.answer[:10], threading.stack_size() == 256 << 10)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.endswith(" True\n")


async def test_one_thread_parses_all_replies() -> None:
    """One thread with a large enough stack parses all replies."""
    names = {
        await runtime.parse_apart(lambda: __import__("threading").current_thread().name)
        for _ in range(5)
    }
    assert names == {"rlm-parser_0"}


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("'half \\ud800'", "half \\ud800"),
        ("['\\udfff']", '["\\\\udfff"]'),
        ("{'\\ud800': 1}", '{"\\\\ud800": 1}'),
    ],
)
async def test_an_answer_can_be_printed(value: str, answer: str) -> None:
    """Half of a surrogate pair in an answer is escaped, so print and encode always work."""
    result = await run(Scripted([final(value)]))
    assert result.answer == answer
    assert result.answer.encode()


@pytest.mark.parametrize("output_type", [list[str], dict[str, str], Any])
async def test_a_typed_answer_can_be_printed(output_type: Any) -> None:
    """The same for the strings and keys of a typed answer."""
    value = "{'\\ud800': 'x\\ud800'}" if output_type == dict[str, str] else "['x\\ud800']"
    result = await run(Scripted([final(value)]), output_type=output_type)
    assert str(result.answer).encode()
    assert "x\\ud800" in (
        [*result.answer.values()] if isinstance(result.answer, dict) else result.answer
    )


async def test_a_partial_answer_can_be_printed() -> None:
    """The same for a partial answer that is code output."""
    result = await run(Scripted([code("print('half \\ud800')")]), max_iterations=1)
    assert result.answer.encode()
