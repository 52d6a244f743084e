"""The files of a command: paths, pipes and stdin."""

import argparse
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_integrations.cli.output import quote_file, say
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus


def open_corpus(options: argparse.Namespace) -> "Corpus":
    """The files as one document. Empty ones are reported.

    Raises:
        InputError: All are empty, or one cannot be read as text.
    """
    from rlm_integrations.corpus import Corpus

    # A byte order mark at the start of a UTF-8 file is not part of its text.
    encoding = (
        "utf-8-sig" if options.encoding.lower() in {"utf-8", "utf8", "utf_8"} else options.encoding
    )
    documents = [_document(file, encoding, options.errors) for file in options.files]
    corpus = Corpus.build(
        documents if len(documents) > 1 else documents[0], encoding=encoding, errors=options.errors
    )
    empty = [
        quote_file(file)
        for file, source in zip(options.files, corpus.sources, strict=True)
        if not source.length
    ]
    if len(empty) == len(options.files):
        corpus.close()
        raise InputError(f"there is no text in {', '.join(empty)}")
    for each in empty:
        say(f"{each} is empty")
    return corpus


@dataclass(frozen=True)
class _PipedDocument:
    """The content of a pipe."""

    text: str
    metadata: Mapping[str, str]


def _document(file: str, encoding: str, errors: str) -> object:
    """A path, or the content of a pipe, such as the process substitution <(zcat archive.gz)."""
    if file == "-":
        if sys.stdin.isatty():
            say("reading from the terminal; end with Ctrl-D")
        return _decode(sys.stdin.buffer.read(), "stdin", encoding, errors)
    path = Path(file)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path  # reading it raises the error that names the reason
    if not stat.S_ISFIFO(mode):
        return path
    text = _decode(path.read_bytes(), repr(file), encoding, errors)
    return _PipedDocument(text, {"file": path.name})


def _decode(data: bytes, name: str, encoding: str, errors: str) -> str:
    try:
        return data.decode(encoding, errors)
    except LookupError as error:
        raise InputError(
            f"{error}: choose an --encoding such as utf-8, and --errors such as strict or replace"
        ) from error
    except UnicodeDecodeError as error:
        where = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,}"
        named = encoding.removesuffix("-sig")
        raise InputError(
            f"{name} is not valid {named}: {where}; give its --encoding, or --errors replace"
        ) from error
