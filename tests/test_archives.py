"""Archives and compressed texts: their text files by name, within limits."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_integrations.corpus import Corpus, archives
from rlm_integrations.errors import ContextError

FILES = {
    "docs/b.md": b"# B\n",
    "a.txt": "für".encode(),
    "logo": b"\0\1",
    "pdf": b"%PDF-1.7",
    "latin": b"caf\xe9",
    "node_modules/x.js": b"x",
    "docs/.env": b"KEY=1",
}
LEFT_OUT = {"logo": "binary", "pdf": "binary", "latin": "not utf-8"}


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("docs/", "")
        for name, content in FILES.items():
            archive.writestr(name, content)


def tarred(path: Path) -> None:
    suffix = path.suffix.removeprefix(".").replace("tgz", "gz").replace("tar", "")
    with tarfile.open(path, f"w:{suffix}") as archive:
        archive.addfile(_info("docs", b"", type=tarfile.DIRTYPE))
        for name, content in FILES.items():
            archive.addfile(_info(f"./{name}", content), io.BytesIO(content))


def _info(name: str, content: bytes, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.zip", zipped),
        *((f"x.{suffix}", tarred) for suffix in "tar tar.gz TGZ tar.bz2 tar.xz".split()),
    ],
)
def test_an_archive_is_its_text_files(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    """Names are the paths in the archive, in its order; ignored files are not in it, and what is no
    text is left out. With a name it is a part of a mapping.
    """
    write(tmp_path / name.lower())
    (tmp_path / name.lower()).rename(tmp_path / name)
    with Corpus.build(tmp_path / name) as corpus:
        texts = {source.label: corpus.text(source.name) for source in corpus.sources}
        assert [*texts.items()] == [("docs/b.md", "# B\n"), ("a.txt", "für")]
        assert (corpus.kind, corpus.left_out) == ("texts by name", LEFT_OUT)
        assert corpus.sources[0].metadata == {"file": "docs/b.md"}
    with Corpus.build({"in": tmp_path / name, "b": "text"}) as corpus:
        assert [source.name for source in corpus.sources] == ["in/docs/b.md", "in/a.txt", "b"]
        assert "in/logo" in corpus.left_out


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_a_compressed_text_is_one_text(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    """It is read like the file in it, also in a list, and is called by that file's name."""
    path = tmp_path / f"log.txt.{suffix}"
    path.write_bytes(compress("für\r\n".encode()))
    with Corpus.build(path) as corpus, Corpus.build(["a", path]) as several:
        assert (corpus.text("context_0"), corpus.kind) == ("für\r\n", "text")
        assert corpus.sources[0].label == several.sources[1].label == "log.txt"
    with pytest.raises(ContextError, match="is not valid ascii"):
        Corpus.build(path, encoding="ascii")
    path.write_bytes(compress(b"\0"))
    with pytest.raises(ContextError, match="is binary, not text"):
        Corpus.build(path)


def test_members_that_are_no_files_are_left_out(tmp_path: Path) -> None:
    """Links, devices, large, encrypted and damaged members, unprintable names and a second file of
    a name are left out, each with the reason.
    """
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(_info("a", b"text"), io.BytesIO(b"text"))
        archive.addfile(_info("../a", b"text"), io.BytesIO(b"text"))
        archive.addfile(_info("a", b"again"), io.BytesIO(b"again"))
        archive.addfile(_info("link", b"", type=tarfile.SYMTYPE, linkname="link"))
        archive.addfile(_info("device", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5))
        archive.addfile(_info("caf\udce9", b"x"), io.BytesIO(b"x"))
    with Corpus.build(tmp_path / "x.tar") as corpus:
        assert [source.name for source in corpus.sources] == ["a", "../a"]
        assert corpus.left_out == {
            "a (again)": "second file of its name",
            "link": "link",
            "device": "not a regular file",
            "caf\\udce9": "unprintable name",
        }
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("good", "text")
        packed.writestr("large", bytes(20_000_001))
        packed.writestr("lies", "text" * 100)
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "good")
        packed.writestr("unnamed", "text")
        packed.writestr("secret", "text")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.rindex(b"secret") - 46 + 8
    data[at : at + 2] = struct.pack("<H", 1)  # the flag of an encrypted member
    at = data.rindex(b"unnamed") - 46 + 28  # the length of the name
    data[at : at + 6] = struct.pack("<HHH", 0, 0, 7)  # it is a comment now
    at = data.index(b"lies") + 4
    data[at : at + 2] = b"\xff\xff"
    (tmp_path / "x.zip").write_bytes(data)
    with Corpus.build(tmp_path / "x.zip") as corpus:
        assert [source.name for source in corpus.sources] == ["good"]
        assert corpus.left_out == {
            "large": "over 20 MB",
            "lies": "damaged",
            "link": "link",
            "(no name)": "unprintable name",
            "secret": "encrypted",
        }


def bomb_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abcd":
            archive.writestr(name, b"a" * 15_000_000)


def bomb_in_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        content = bytes(60_000_000)
        archive.addfile(_info("a", content), io.BytesIO(content))


def bomb_in_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a" * 60_000_000))


@pytest.mark.parametrize(
    ("name", "write"),
    [("x.zip", bomb_in_zip), ("x.tar.gz", bomb_in_tar), ("x.txt.gz", bomb_in_gzip)],
)
def test_bombs_are_refused(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    """What unpacks to many times its size is an error that says what to do; no descriptor stays."""
    write(tmp_path / name)
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(ContextError, match=r"or more than 200 times its packed size: unpack it"):
        Corpus.build(tmp_path / name)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.gz", "x.bz2"])
def test_damaged_archives_are_errors(tmp_path: Path, name: str) -> None:
    """Other bytes, a cut archive, a pipe and a missing file are clear errors, never a hang."""
    path = tmp_path / name
    write = zipped if name == "x.zip" else tarred
    if ".tar" in name or name == "x.zip":
        write(path)
    else:
        path.write_bytes({"x.gz": gzip, "x.bz2": bz2}[name].compress(b"text" * 1_000))
    whole = path.read_bytes()
    for content in (b"no archive at all" * 100, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ContextError, match="cannot be unpacked: it is damaged"):
            Corpus.build(path)
    path.unlink()
    with pytest.raises(ContextError, match="cannot be read: No such file"):
        Corpus.build(path)
    os.mkfifo(path)
    with pytest.raises(ContextError, match="is not a regular file"):
        Corpus.build(path)


def test_more_members_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of members is limited."""
    zipped(tmp_path / "x.zip")
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    with pytest.raises(ContextError, match=r"^'[^']*x\.zip' has more than 3 files: unpack it"):
        Corpus.build(tmp_path / "x.zip")
