"""PDF files: a file of 1,000 pages to text, compared with a program that only calls pypdf."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rlm_integrations.corpus import Corpus
from tests._formats import page_of, pdf_of
from tests.bench.corpus import document
from tests.bench.table import Row

PAGES, LINES, LINE_CHARS = 1_000, 45, 80
ALONE = """
import sys
from pypdf import PdfReader
for page in PdfReader(sys.argv[1]).pages:
    page.extract_text()
"""
TIMES = 5  # in turn, so that both have the same machine


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def run() -> list[Row]:
    text = document(PAGES * LINES * LINE_CHARS).replace("\n", " ")
    lines = [text[at : at + LINE_CHARS] for at in range(0, PAGES * LINES * LINE_CHARS, LINE_CHARS)]
    pages = [lines[at : at + LINES] for at in range(0, len(lines), LINES)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.pdf"
        path.write_bytes(pdf_of([page_of(*page) for page in pages]))

        def alone() -> None:
            subprocess.run([sys.executable, "-c", ALONE, path], check=True)

        def ours() -> None:
            Corpus.build(path).close()

        figures = [(seconds(alone), seconds(ours)) for _ in range(TIMES)]
    return [
        Row("1,000 pages, 3.6 MB of text: pypdf alone", median(a for a, _ in figures), None, "s"),
        Row("a context of it, with its process", median(o for _, o in figures), None, "s"),
        Row("ratio, the median of five", median(o / a for a, o in figures), 1.1, "x"),
    ]
