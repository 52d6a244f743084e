"""The demo checks itself: it passes if the library's answers are right, and fails if they are
wrong.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rlm_integrations.result import Citation, RLMResult

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rlm_demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["rlm_demo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", ["3", "20"])
def test_the_demo_finds_what_it_hid(
    seed: str, demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every answer has its needle and every citation is the document's text; the times add up to
    the total.
    """
    assert demo.main(["--seed", seed, "--megabytes", "1"]) == 0
    shown = capsys.readouterr().out
    assert f"repeat this run with --seed {seed}\n" in shown
    assert shown.count("right, and cited at its place") == 3
    assert "does NOT hold" not in shown
    total, *parts = (float(seconds) for seconds in re.findall(r"(-?\d+\.\d\d) s", shown))
    assert len(parts) == 4
    assert abs(total - sum(parts)) < 0.05
    assert min(parts) >= 0


def test_a_spoiled_needle_is_noticed(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """If a needle is removed, the demo says which answer is wrong and why, and exits with 1."""
    assert demo.main(["--seed", "3", "--megabytes", "1", "--spoil"]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"WRONG: the document says '\d{5}', the answer does not", shown)
    assert shown.endswith("1 of 3 answers are wrong\n")


def test_citations_are_checked_by_the_demo_itself(demo: ModuleType) -> None:
    """The demo compares citations with its own copy of the document: a wrong quote or place is an
    error.
    """
    document, (needle, *_) = demo.made_up(demo.Random(1), 20_000)
    number, end = int(needle.source[-1]), needle.start + len(needle.sentence)
    assert document[number][needle.start : end] == needle.sentence

    def problem(start: int, quote: str, answer: str = needle.sentence) -> str:
        citation = Citation(needle.source, start, start + len(quote), quote)
        return str(
            demo.wrong_with(RLMResult(answer=answer, citations=(citation,)), needle, document)
        )

    assert problem(needle.start, needle.sentence) == ""
    assert "differs from the document at that place" in problem(needle.start + 1, needle.sentence)
    assert "no citation has its place" in problem(0, document[number][:9])
    assert "the answer does not" in problem(needle.start, needle.sentence, "I do not know.")


def test_each_run_is_another_one_unless_its_seed_is_given(demo: ModuleType) -> None:
    """The same seed makes the same document; without one, the demo chooses one and prints it."""
    same = [demo.made_up(demo.Random(5), 10_000) for _ in range(2)]
    assert same[0] == same[1] != demo.made_up(demo.Random(6), 10_000)
    runs = [
        subprocess.run(
            [sys.executable, DEMO, "--megabytes", "0.1"], capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert len({run.stdout.partition("--seed ")[2].split()[0] for run in runs}) == 2
    assert [run.stderr for run in runs] == ["", ""]
