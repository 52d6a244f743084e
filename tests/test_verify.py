"""Certificates of coverage, and the program that checks them."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import InputError, verify
from rlm_integrations.corpus import Corpus
from rlm_integrations.coverage import coverage_of
from rlm_integrations.result import RLMResult
from tests.report._made import DOCUMENT, made_run


@pytest.fixture(scope="module")
def run() -> RLMResult:
    with Corpus.build(DOCUMENT) as corpus:
        return made_run(corpus)


@pytest.fixture
def certificate(run: RLMResult, tmp_path: Path) -> Path:
    """The certificate of a run, beside its two documents."""
    for number, text in enumerate(DOCUMENT):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    run.coverage.certificate(tmp_path / "certificate.json")
    return tmp_path / "certificate.json"


def check(certificate: Path) -> int:
    """The exit code for the documents beside the certificate."""
    return verify.main([str(certificate), *map(str, sorted(certificate.parent.glob("*.txt")))])


def test_a_certificate_is_verified(
    run: RLMResult, certificate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how much was read, in how many prompts, as `result.coverage` does; the documents may
    come in any order, or as a list in JSON.
    """
    assert check(certificate) == 0
    read, prompts = run.coverage.characters_read, len(run.coverage.readings)
    expected = f"verified: {read:,} of {sum(map(len, DOCUMENT)):,} characters were read, in {prompts} prompts; 2 citations\n"
    assert capsys.readouterr().out == expected
    both = certificate.with_name("both.json")
    both.write_text(json.dumps(DOCUMENT[::-1]), encoding="utf-8")
    assert verify.main([str(certificate), str(both)]) == 0


def test_the_program_is_one_file(certificate: Path, tmp_path: Path) -> None:
    """It imports the standard library alone, so it also works as a copy; as a module it loads no
    other module of the package.
    """
    source = Path(verify.__file__)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or "rlm_integrations"]
            if isinstance(node, ast.ImportFrom)
            else [each.name for each in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names
    shutil.copy(source, tmp_path / "copy.py")
    documents = [str(tmp_path / f"{number}.txt") for number in range(2)]
    loaded = (
        "import runpy, sys; sys.argv[0] = 'verify'\n"
        "try: runpy.run_module('rlm_integrations.verify', run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "assert code == 0\n"
        "assert not [name for name in sys.modules if name.startswith('rlm_integrations.')]"
    )
    for command in ([str(tmp_path / "copy.py")], ["-c", loaded]):
        words = [sys.executable, *command, str(certificate), *documents]
        subprocess.run(words, check=True, capture_output=True, timeout=250)


def _move(content: dict[str, Any]) -> None:
    span = content["prompts"][2]["pieces"][1]
    span[1:] = [span[1] + 1, span[2] + 1]


def _drop(content: dict[str, Any]) -> None:
    del content["prompts"][2]


def _drop_and_count(content: dict[str, Any]) -> None:
    del content["prompts"][2]
    content["calls"] -= 1


def _claim(content: dict[str, Any]) -> None:
    content["sources"][1]["read"][0][1] += 1


def _misquote(content: dict[str, Any]) -> None:
    content["citations"][0]["start"] -= 1


def _reword(content: dict[str, Any]) -> None:
    content["prompts"][0]["pieces"][0] += "!"


def _other_document(content: dict[str, Any]) -> None:
    content["sources"][0]["sha256"] = content["sources"][1]["sha256"]


@pytest.mark.parametrize(
    "change", [_move, _drop, _drop_and_count, _claim, _misquote, _reword, _other_document]
)
@pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "sealed again"])
def test_a_changed_certificate_fails(
    change: Callable[[dict[str, Any]], None], sealed: bool, certificate: Path
) -> None:
    """A moved span, a dropped call, a claim that more was read, another quote, prompt or document:
    each is found, even if the seal is made anew.
    """
    content = json.loads(certificate.read_bytes())
    change(content)
    if sealed:
        content["seal"] = verify.seal(content)
    certificate.write_text(json.dumps(content), encoding="utf-8")
    assert check(certificate) == 1


def test_a_changed_answer_breaks_the_seal(
    certificate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the documents cannot show is covered by the seal."""
    content = json.loads(certificate.read_bytes())
    content["answer"] = "Bruno approved it."
    certificate.write_text(json.dumps(content), encoding="utf-8")
    assert check(certificate) == 1
    assert "the file was changed" in capsys.readouterr().out


@pytest.mark.parametrize("at", [0, 5_000, len(DOCUMENT[0].encode()) - 1])
def test_a_changed_byte_of_a_document_fails(at: int, certificate: Path) -> None:
    """So does a missing document."""
    path = certificate.with_name("0.txt")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert check(certificate) == 1
    path.unlink()
    assert check(certificate) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"{}", b"3", b'{"kind": 1}', b"[" * 100_000],
    ids=["empty", "bytes", "list", "object", "number", "kind", "deep"],
)
def test_another_file_is_no_certificate(
    content: bytes, certificate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program says so in one line, without a traceback."""
    certificate.write_bytes(content)
    assert check(certificate) in {1, 2}
    out = capsys.readouterr().out
    assert "Traceback" not in out
    assert len(out.splitlines()) <= 2


def test_a_field_of_a_wrong_type_is_no_traceback(certificate: Path) -> None:
    """Whatever is put in place of any field, the check fails and does not raise."""
    whole = json.loads(certificate.read_bytes())
    values: list[Any] = [None, -1, "x\x1b[2J", [], {}, [[]], [["context_0", -5, 10**9]], [None]]
    for name in set(whole) - {"seal"}:
        for value in values:
            changed = {**whole, name: value}
            changed["seal"] = verify.seal(changed)
            certificate.write_text(json.dumps(changed), encoding="utf-8")
            fields = {"version", "run_id", "question", "answer", "stop_reason"}
            emptied = name == "citations" and value in ([], {})
            assert (check(certificate) == 0) == (name in fields or emptied), (name, value)


def test_a_file_that_cannot_be_read(
    certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, text in another encoding and an unknown encoding are one line each."""
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"\xe9t\xe9")
    for words in (
        [str(tmp_path / "none")],
        [str(certificate), str(latin)],
        [str(certificate), str(latin), "--encoding", "klingon"],
    ):
        assert verify.main(words) == 2
        assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_certificate_needs_a_result(tmp_path: Path) -> None:
    """The coverage of no result has no prompts to write."""
    with pytest.raises(InputError, match="a certificate needs a result"):
        coverage_of([], {}).certificate(tmp_path / "certificate.json")
