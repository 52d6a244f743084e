"""The members of documents that are zip archives, within limits."""

import zipfile
import zlib
from typing import IO, Final
from xml.parsers import expat

from rlm_integrations.extraction.builder import UnreadableError

_FREE_BYTES: Final = 50_000_000  # unpacked; beyond that, the ratio counts
_MAX_BYTES: Final = 500_000_000
_MAX_RATIO: Final = 200
_OLE: Final = b"\xd0\xcf\x11\xe0"
_STEP: Final = 1 << 18


class ZippedDocument:
    """Reads the members of a document that is a zip archive.

    Raises:
        UnreadableError: It is not one, or has a password.
    """

    def __init__(self, file: IO[bytes], kind: str) -> None:
        self._kind = kind
        start = file.read(4)
        if start == _OLE:  # so Word encrypts
            raise UnreadableError(
                f"has a password, or is of an old version of Office: save it as {kind} without a"
                " password",
                "encrypted",
            )
        file.seek(0, 2)
        size = file.tell()
        self._left = min(_MAX_BYTES, max(_FREE_BYTES, _MAX_RATIO * size))
        try:
            self._archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise self.damaged(str(error)) from error
        self.names = frozenset(self._archive.namelist())

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            UnreadableError: There is none of this name, it is damaged, or it is too large.
        """
        parts = []
        try:
            info = self._archive.getinfo(name)
            if info.flag_bits & 1:
                raise UnreadableError("has a password: remove it first", "encrypted")
            with self._archive.open(info) as member:
                while part := member.read(_STEP):
                    self._left -= len(part)
                    if self._left < 0:
                        raise UnreadableError(
                            f"unpacks to more than {_MAX_BYTES // 1_000_000} MB, or to more than"
                            f" {_MAX_RATIO} times its size",
                            "too large when unpacked",
                        )
                    parts.append(part)
        except KeyError as error:
            raise self.damaged(f"it has no {name!r}") from error
        except (
            *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError),
            *(NotImplementedError, RuntimeError),
        ) as error:
            raise self.damaged(str(error)) from error
        return b"".join(parts)

    def damaged(self, why: str) -> UnreadableError:
        """The error for a document that is not as it must be."""
        return UnreadableError(f"is not a readable {self._kind}: it is damaged ({why})", "damaged")


def xml_parser() -> expat.XMLParserType:
    """A parser whose names are `namespace name`. Documents with a DTD of their own are refused: its
    entities may be made to fill the memory.
    """
    parser = expat.ParserCreate(namespace_separator=" ")

    def refuse(_name: str, _system: str | None, _public: str | None, has_own: bool) -> None:
        if has_own:
            raise UnreadableError("has entity declarations, which are not read", "hostile XML")

    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    return parser
