"""A str that was filled from a descriptor behaves like any other str."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.sandbox import fill as module
from rlm_integrations.sandbox.fill import STEP_CHARS, fill

ORDER = "le" if sys.byteorder == "little" else "be"
CODECS = {1: "latin-1", 2: f"utf-16-{ORDER}", 4: f"utf-32-{ORDER}"}
MAXCHARS = [0x7F, 0xFF, 0xFFFF, 0x10FFFF]
WIDTHS = {0x7F: 1, 0xFF: 1, 0xFFFF: 2, 0x10FFFF: 4}


@contextmanager
def memory(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("test")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def maxchar_of(text: str) -> int:
    widest = max(map(ord, text), default=0)
    return next(each for each in MAXCHARS if widest <= each)


def filled(text: str, stored: int, before: bytes = b"", chars: int | None = None) -> str:
    with memory(before + text.encode(CODECS[stored], "surrogatepass")) as fd:
        return fill(
            fd, len(before), len(text) if chars is None else chars, stored, maxchar_of(text)
        )


def assert_same(made: str, text: str) -> None:
    """Check equality in every operation that reads the memory: hash, order, search, encodings,
    size, slices.
    """
    assert made == text
    assert hash(made) == hash(text)
    assert {text: 1}[made] == 1
    assert made.isascii() == text.isascii()
    assert made.encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")
    assert sys.getsizeof(made[:-1]) == sys.getsizeof(text[:-1])
    assert made.upper() == text.upper()
    assert made[-3:] + "x" == text[-3:] + "x"
    assert pickle.loads(pickle.dumps(made, 5)) == text


SAMPLES = {
    0x7F: "a\n\x00\x7f",
    0xFF: "aé\xff\x80",
    0xFFFF: "a€\ud800\udc00\uffff",
    0x10FFFF: "a😀\udc00\U0010ffff",
}


@pytest.mark.parametrize("chars", [1, 2, 1000, STEP_CHARS, STEP_CHARS + 1, 2 * STEP_CHARS + 77])
@pytest.mark.parametrize(
    ("maxchar", "stored"),
    [(each, stored) for each in MAXCHARS for stored in (1, 2, 4) if stored >= WIDTHS[each]],
)
def test_every_width_from_every_stored_width(maxchar: int, stored: int, chars: int) -> None:
    """Text of each character width is filled from its own width, and narrowed from each larger
    width, within one step and over several.
    """
    text = (SAMPLES[maxchar] * (chars // 4 + 1))[-chars:]
    assert maxchar_of(text) == maxchar
    assert_same(filled(text, stored, before=b"xyz"), text)


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(), max_size=200), st.integers(0, 3), st.data())
def test_any_text_above_a_step(text: str, before: int, data: st.DataObject) -> None:
    """Any text is read unchanged at any position of the file; the steps are small here, so that
    short texts need several.
    """
    stored = data.draw(
        st.sampled_from([width for width in (1, 2, 4) if width >= WIDTHS[maxchar_of(text)]])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP_CHARS", data.draw(st.integers(2, 50)))
        assert_same(filled(text, stored, before=b"#" * before), text)


def test_the_empty_text() -> None:
    """Zero characters are the empty str, even from an empty file."""
    assert filled("", 1) == ""


@pytest.mark.parametrize("chars", [10, STEP_CHARS + 10])
def test_a_file_that_is_too_short(chars: int) -> None:
    """A file that is shorter than the text raises; the result is never a shorter or unfilled
    str.
    """
    text = "é" * (chars - 3)
    with pytest.raises(EOFError, match="ends 3 bytes before"):
        filled(text, 1, chars=chars)


@pytest.mark.parametrize("chars", [10, STEP_CHARS + 10])
@pytest.mark.parametrize("stored", [1, 2])
def test_a_file_that_is_not_ascii_after_all(chars: int, stored: int) -> None:
    """A byte above 127 in text declared as ASCII raises: such a str would be invalid for the
    interpreter.
    """
    data = ("a" * (chars - 1) + "é").encode(CODECS[stored])
    with memory(data) as fd, pytest.raises(ValueError, match="not"):
        fill(fd, 0, chars, stored, 0x7F)


def test_the_position_of_the_file_stays() -> None:
    """The descriptor's position is not used or changed."""
    with memory(b"abcdef") as fd:
        os.lseek(fd, 2, os.SEEK_SET)
        assert fill(fd, 1, 3, 1, 0x7F) == "bcd"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 2


MEASURE = """
import os, sys
from rlm_integrations.sandbox.fill import fill
def peak(): return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
stored, maxchar, chars = map(int, sys.argv[1:])
fd = os.memfd_create("test")
piece = chr(maxchar).encode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[stored]) * (1 << 16)
for _ in range(chars >> 16): os.write(fd, piece)
before = peak()
text = fill(fd, 0, chars, stored, maxchar)
print((peak() - before) / (sys.getsizeof(text)))
"""


@pytest.mark.parametrize(
    ("stored", "maxchar"), [(1, 0x7F), (1, 0xFF), (2, 0xFFFF), (4, 0x10FFFF), (4, 0x7F)]
)
def test_filling_needs_no_second_copy_in_memory(stored: int, maxchar: int) -> None:
    """Peak memory while filling is at most 1.1 times the size of the text."""
    command = [sys.executable, "-c", MEASURE, str(stored), str(maxchar), str(48 << 20)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.1


def test_nothing_of_the_package_is_needed() -> None:
    """The module needs only the standard library, as in a child."""
    code = f"import runpy, sys; runpy.run_path({module.__file__!r}); print([m for m in sys.modules if m.startswith('rlm')])"
    assert (
        subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
