"""Reads the document's text in the child: fills a new str directly from a file descriptor, so that
there is never a second copy. Uses only the standard library.

It writes into a str that no other code has seen yet, as the interpreter's C code does, and first
checks that this interpreter has the expected memory layout of str.
"""

import ctypes
import os
import sys

# Characters read at once if they are checked or narrowed; a shorter text is read in one step read
STEP_CHARS = 1 << 18

_PAGE = os.sysconf("SC_PAGE_SIZE")
_WORTH_LARGE_PAGES = 8 << 20  # bytes
_MADV_HUGEPAGE = 14

_libc = ctypes.CDLL(None)
_new = ctypes.pythonapi.PyUnicode_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_ssize_t, ctypes.c_uint32)
_from_data = ctypes.pythonapi.PyUnicode_FromKindAndData
_from_data.restype, _from_data.argtypes = (
    ctypes.py_object,
    (ctypes.c_int, ctypes.c_char_p, ctypes.c_ssize_t),
)


def fill(fd: int, offset: int, chars: int, stored: int, maxchar: int) -> str:
    """A text that a file holds at fixed width.

    Args:
        fd: A descriptor of the file; its position is not used or changed.
        offset: The position of the text's first byte.
        chars: How many characters it has.
        stored: Bytes per character in the file: 1, 2 or 4, in this machine's byte order.
        maxchar: The smallest of 127, 255, 65,535 and 1,114,111 that no character exceeds. It may
            need fewer bytes than `stored`.

    Raises:
        EOFError: The file ends before the text does.
        ValueError: `maxchar` declares ASCII, but the text is not ASCII.
    """
    text: str
    if chars <= STEP_CHARS:
        data = bytearray(chars * stored)
        _read(fd, memoryview(data), offset)
        text = _from_data(stored, bytes(data), chars)
        if maxchar < 128 and not text.isascii():
            raise ValueError("the file should hold only ASCII characters here, but does not")
        return text
    width = 1 if maxchar < 1 << 8 else 2 if maxchar < 1 << 16 else 4
    text = _new(chars, maxchar)
    characters = (ctypes.c_char * (chars * width)).from_address(id(text) + _header(width, maxchar))
    _in_large_pages(ctypes.addressof(characters), len(characters))
    with memoryview(characters).cast("B") as whole:
        if stored == width and maxchar > 127:
            _read(fd, whole, offset)
        else:
            _fill_in_steps(whole, width, fd, offset, stored, maxchar)
    return text


def _in_large_pages(address: int, length: int) -> None:
    """Request large pages if the kernel offers them: writing a gigabyte in small pages takes a
    second longer. A refusal is harmless.
    """
    start = -(-address // _PAGE) * _PAGE
    if length - (start - address) >= _WORTH_LARGE_PAGES:
        _libc.madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(length - (start - address)), _MADV_HUGEPAGE
        )


def _fill_in_steps(
    whole: memoryview, width: int, fd: int, offset: int, stored: int, maxchar: int
) -> None:
    for at in range(0, len(whole), STEP_CHARS * width):
        part = whole[at : at + STEP_CHARS * width]
        data = bytearray(len(part) // width * stored)
        _read(fd, memoryview(data), offset + at // width * stored)
        data = _narrowed(data, stored, width)
        # The file may change at any time, and a str that is marked as ASCII must be ASCII.
        if maxchar < 128 and not data.isascii():
            raise ValueError("the file should hold only ASCII characters here, but does not")
        part[:] = data


def _narrowed(data: bytearray, stored: int, width: int) -> bytearray:
    """The characters at a smaller width that fits all of them."""
    if stored == width:
        return data
    # Which of its units holds a character's value
    low = 0 if sys.byteorder == "little" else stored // width - 1
    if width == 1:
        return data[low::stored]
    return bytearray(memoryview(data).cast("H")[low::2])


def _read(fd: int, part: memoryview, offset: int) -> None:
    """Fill the whole buffer from this offset."""
    done = 0
    while done < len(part):
        count = os.preadv(fd, [part[done : done + (8 << 20)]], offset + done)
        if count == 0:
            raise EOFError(f"the file ends {len(part) - done} bytes before the text does")
        done += count


def _header(width: int, maxchar: int) -> int:
    """The size of the header before the first character of such a str, in bytes."""
    sample = chr(maxchar) * 2  # not one character: those objects may be shared and have more fields
    size = sys.getsizeof(sample) - 3 * width
    if ctypes.string_at(id(sample) + size, 2 * width) != b"".join(
        ord(each).to_bytes(width, sys.byteorder) for each in sample
    ):
        raise RuntimeError(f"Python {sys.version.split()[0]} has an unknown memory layout of str")
    return size
