"""Folders and glob patterns: their text files by relative path, without ignored ones."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus, folder, reading
from rlm_integrations.corpus.folder import Folder
from rlm_integrations.errors import ContextError

NAMES = ["a", "b", "a.txt", "b.log", "build", "x y", "#a", "!a", "ab", "[a]"]
PATTERNS = [
    *NAMES,
    *"*.txt *.log a/ /a a/b a/** **/b a/**/b **/build/ build/* !a !*.txt !b/ !/a".split(),
    *"[ab] [!a]* [^b] [a-c] [b-a] [!b-a] [ a[ a\\ \\#a \\!a ? ?b * ** ***/a *a* /**/a a** **a".split(),
    *"*** a/*** a/***/b".split(),
    *["x y ", "x\\ y", "a \\ ", "#a", "", "/", "!", "a//b", "[]a]", "[[]a[]]", "a?/b", "!build/"],
]


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    paths=st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=12),
    ignores=st.dictionaries(
        st.sampled_from(["", "a", "build", "a/b"]),
        st.lists(st.sampled_from(PATTERNS), max_size=5),
        max_size=3,
    ),
)
@example(paths=[["a"], ["b", "a"]], ignores={"": ["***/a"]})
@example(paths=[["a"], ["b"]], ignores={"": ["[b-a]"]})
@example(paths=[["a"], ["b"]], ignores={"": ["[!b-a]"]})
def test_files_are_ignored_as_in_git(
    tmp_path: Path, paths: list[list[str]], ignores: dict[str, list[str]]
) -> None:
    """The files are those that git lists, for nested files of patterns with negations."""
    root = tmp_path / "repository"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    subprocess.run(["git", "init", "-q", root], check=True)
    for parts in paths:
        path = root.joinpath(*parts)
        if not any(each.is_file() for each in [path, *path.parents]) and not path.exists():
            write(root, {"/".join(parts): "text"})
    for base, lines in ignores.items():
        if (root / base).is_dir():
            write(root, {f"{base}/.gitignore".lstrip("/"): "\n".join(lines)})
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
    ).stdout.decode()
    assert Folder(root).files == sorted(filter(None, listed.split("\0")))


def test_a_folder_is_a_mapping_of_sorted_paths(tmp_path: Path) -> None:
    """The names are relative paths, sorted, and the metadata has them; caches, dependencies and
    secrets are ignored, unless a `.gitignore` includes them again.
    """
    write(
        tmp_path,
        {
            "src/b.py": "b",
            "src/a.py": "",
            "README": "read",
            ".git/config": "x",
            "node_modules/x.js": "x",
            ".env": "KEY=1",
            "sub/.env": "KEY=2",
            "sub/.gitignore": "!.env\n",
        },
    )
    with Corpus.build(tmp_path) as corpus:
        assert [source.name for source in corpus.sources] == [
            *["README", "src/a.py", "src/b.py", "sub/.env", "sub/.gitignore"]
        ]
        assert (corpus.kind, corpus.left_out) == ("texts by name", {})
        assert corpus.metadata["sources"][0]["metadata"] == {"file": "README"}
        assert "left_out" not in corpus.metadata
    with Corpus.build({"code": tmp_path / "src", "note": "n"}) as corpus:
        assert [source.label for source in corpus.sources] == ["code/a.py", "code/b.py", "note"]


def test_ignores_above_the_folder_count_up_to_the_repository(tmp_path: Path) -> None:
    """A folder in a repository obeys the `.gitignore` files above it, and none outside of it."""
    write(
        tmp_path,
        {
            ".gitignore": "*.py\n",
            "repo/.git/HEAD": "",
            "repo/.gitignore": "*.log\n/src/made.txt\n",
            "repo/src/.gitignore": "",
            "repo/src/a.py": "a",
            "repo/src/b.log": "b",
            "repo/src/made.txt": "c",
            "repo/src/deep/made.txt": "d",
        },
    )
    assert Folder(tmp_path / "repo" / "src").files == [".gitignore", "a.py", "deep/made.txt"]
    (tmp_path / "repo" / ".git" / "HEAD").unlink()
    (tmp_path / "repo" / ".git").rmdir()
    assert "b.log" in Folder(tmp_path / "repo" / "src").files


def test_what_is_no_text_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binary, large and undecodable files, links out of the folder and in circles, pipes, and names
    that cannot be printed are left out; the metadata say how many, which and why.
    """
    monkeypatch.setattr(folder, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(folder, "MAX_FILES", 11)
    root = write(
        tmp_path / "root",
        {
            "a.txt": "text",
            "z.txt": "text",
            "zeros": b"a\0b",
            "pdf": b"%PDF-1.7",
            "large": "x" * 11,
            "latin": b"caf\xe9",
            "new\nline": "x",
        },
    )
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_text("x")
    write(tmp_path, {"secret": "x"})
    os.mkfifo(root / "pipe")
    for name, target in {
        "out": "../secret",
        "outside": "..",
        "loop": "loop",
        "gone": "nowhere",
        "circle": ".",
        "inside": "a.txt",
    }.items():
        (root / name).symlink_to(target)
    with Corpus.build(root) as corpus:
        assert [source.name for source in corpus.sources] == ["a.txt", "inside", "z.txt"]
        assert [corpus.text(source.name) for source in corpus.sources] == ["text"] * 3
        assert corpus.left_out == {
            "zeros": "binary",
            "pdf": "binary",
            "large": "over 20 MB",
            "latin": "not utf-8",
            "new\\nline": "unprintable name",
            "caf\\xe9": "unprintable name",
            "pipe": "not a regular file",
            "out": "link out of the folder",
            "outside": "link out of the folder",
            "loop": "unreadable",
            "gone": "unreadable",
        }
        told = corpus.metadata["left_out"]
        assert (told["files"], told["reasons"]["binary"]) == (11, 2)
        assert told["names"] == corpus.left_out
    with Corpus.build(root, encoding="latin-1") as corpus:
        assert corpus.text("latin") == "café"


def test_a_file_that_changes_while_it_is_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written while it is read is left out, and the others are whole."""
    write(tmp_path, {"a": "first", "b": "second", "c": "third"})
    real = reading._refuse_zeros

    def change(fd: int, path: str) -> None:
        real(fd, path)
        if path.endswith("/b"):
            Path(path).write_text("new")

    monkeypatch.setattr(reading, "_refuse_zeros", change)
    with Corpus.build(tmp_path) as corpus:
        assert {each.name: corpus.text(each.name) for each in corpus.sources} == {
            "a": "first",
            "c": "third",
        }
        assert corpus.left_out == {"b": "changed while it was read"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.py", ["a.py", "src/b.py", "src/deep/c.py"]),
        ("*.py", ["a.py"]),
        ("src/*.py", ["b.py"]),
        ("src/**", ["b.py", "deep/c.py", "deep/d.txt"]),
        ("*/deep/?.[tp]*", ["src/deep/c.py", "src/deep/d.txt"]),
    ],
)
def test_a_pattern_selects_files(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """Names are relative to the folder before the first wildcard; ignored files do not match."""
    names = ["a.py", "src/b.py", "src/deep/c.py", "src/deep/d.txt", ".venv/e.py"]
    write(tmp_path, dict.fromkeys(names, "text"))
    with Corpus.build(tmp_path / pattern) as corpus:
        assert [source.name for source in corpus.sources] == expected


@pytest.mark.parametrize(
    ("files", "context", "message"),
    [
        ({"a/.env": ""}, "a", "there is no file in '.*a', or all are ignored"),
        ({"a/b.txt": ""}, "a/*.py", r"there is no file in '.*\*\.py', or all are ignored"),
        ({"a/b": b"\0"}, "a", r"no file of the context is text: 1 file is left out \(1 binary\)"),
        ({}, "nowhere", "cannot be read: No such file"),
    ],
)
def test_folders_without_text_are_refused(
    tmp_path: Path, files: dict[str, bytes], context: str, message: str
) -> None:
    """A folder or a pattern without any text file is an error that says why."""
    write(tmp_path, files)
    with pytest.raises(ContextError, match=message):
        Corpus.build(tmp_path / context)


def test_more_files_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many files, or too much text, are an error that says what to pass; two texts of one name are one, too."""
    write(tmp_path, {"a/x": "1", "a/y": "2", "a/z": "3"})
    monkeypatch.setattr(folder, "MAX_FILES", 2)
    with pytest.raises(ContextError, match="has more than 2 files: pass a smaller folder"):
        Corpus.build(tmp_path)
    monkeypatch.undo()
    write(tmp_path, {"b/image": "\0" * 50, "b/x": "12345", "b/y": "67890"})
    monkeypatch.setattr(folder, "MAX_FOLDER_BYTES", 10)
    Corpus.build(tmp_path / "b").close()  # what is no text does not count
    monkeypatch.setattr(folder, "MAX_FOLDER_BYTES", 9)
    with pytest.raises(ContextError, match="GB of text: pass a smaller folder"):
        Corpus.build(tmp_path / "b")
    monkeypatch.undo()
    with pytest.raises(ContextError, match="two texts of the context have the name 'a/x'"):
        Corpus.build({"a/x": "1", "a": tmp_path / "a"})
