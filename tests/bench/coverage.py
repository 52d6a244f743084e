"""Coverage: its computation for a large run, its certificate, and finding the document's parts."""

import contextlib
import io
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rlm_integrations import verify
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.prompt_pieces import PromptPieces, made_of
from rlm_integrations.records import SpanRef
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import SourceInfo
from rlm_integrations.trajectory import Execution, Iteration, SubCall
from tests.bench.table import Row, median

CALLS = 10_000
CHARACTERS = 10_000_000


def _text() -> str:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(20_000)]
    return " ".join(draw.choices(words, k=CHARACTERS // 7))


def _verify(*files: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert verify.main(list(map(str, files))) == 0


def _milliseconds(work: Callable[[], object]) -> float:
    def measure() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return median(measure) * 1e3


def _run(corpus: Corpus) -> RLMResult:
    """A run of many calls, whose prompts overlap by half."""
    length = corpus.length("context_0")
    step = length // CALLS
    calls = []
    for number in range(CALLS):
        span = SpanRef("context_0", number * step, min(length, (number + 2) * step))
        calls.append(
            SubCall(
                path=f"r.b1/b00000000aa.{number}",
                function="llm_batch",
                model="sub",
                prompt=made_of([f"Question {number}: ", span], corpus)[1],
                reply="yes",
                depth=1,
                start=0.0,
                end=1.0,
            )
        )
    block = Execution(block=1, code="", status="ok", subcalls=tuple(calls))
    sources = tuple(
        SourceInfo(name=each.name, length=each.length, sha256=each.sha256)
        for each in corpus.sources
    )
    turn = Iteration(iteration=1, reply="", executions=(block,))
    return RLMResult(answer="yes", trajectory=(turn,), sources=sources)


def _locating(text: str, *, is_fine: bool) -> float:
    """Seconds for 1,000 prompts with a thousandth of the document each."""
    with Corpus.build(text) as corpus:
        locator = Locator(corpus, is_fine=is_fine)
        size = len(text) // 1_000
        last: SpanRef | None = None
        prompts = [f"What?\n{text[at : at + size]}" for at in range(0, len(text), size)]
        begun = time.perf_counter()
        for prompt in prompts:
            found: PromptPieces = locator.locate(prompt, after=last)
            last = found.spans[-1]
        return time.perf_counter() - begun


def run() -> list[Row]:
    text = _text()
    with Corpus.build(text) as corpus, tempfile.TemporaryDirectory() as folder:
        result = _run(corpus)
        file, document = Path(folder) / "certificate.json", Path(folder) / "document.txt"
        document.write_text(text, encoding="utf-8")
        coverage = result.coverage
        whole = f"{CALLS:,} calls over {CHARACTERS // 1_000_000} MB"
        fine_index = _milliseconds(lambda: Locator(corpus, is_fine=True))
        rows = [
            Row(f"result.coverage of {whole}", _milliseconds(lambda: result.coverage), 150, "ms"),
            Row("certificate", _milliseconds(lambda: coverage.certificate(file)), 500, "ms"),
            Row("its check", _milliseconds(lambda: _verify(file, document)), 400, "ms"),
            Row("fine index of the document", fine_index, 500, "ms"),
        ]
    repeated = "the same line again\n" * (CHARACTERS // 20)
    # 1,000 prompts take as many seconds as one takes milliseconds
    usual, fine, worst = (
        median(partial(_locating, each, is_fine=is_fine))
        for each, is_fine in ((text, False), (text, True), (repeated, True))
    )
    return [
        *rows,
        Row("a prompt of 10,000 characters is located", usual, 0.5, "ms"),
        Row("the same, fine", fine, 0.5, "ms"),
        Row("the same, in a document of one repeated line", worst, 5, "ms"),
    ]
