"""The files of a command: paths, pipes and stdin."""

import argparse
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_integrations.cli.output import quote_file, say
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.extraction.extractor import TextCache


def open_corpus(
    options: argparse.Namespace, texts: "TextCache | None" = None, *, on_demand: bool = False
) -> "Corpus":
    """The files as one document. Empty ones are reported.

    Args:
        options: The options of the command.
        texts: Keeps the extracted texts of documents.
        on_demand: Whether the files of large folders are read when they are asked for.

    Raises:
        InputError: All are empty, or one cannot be read as text.
    """
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.corpus.folder import count_reasons, split_pattern
    from rlm_integrations.corpus.lazy import build_lazily

    # A byte order mark at the start of a UTF-8 file is not part of its text.
    encoding = (
        "utf-8-sig" if options.encoding.lower() in {"utf-8", "utf8", "utf_8"} else options.encoding
    )
    documents = [_document(file, encoding, options.errors) for file in options.files]
    names = _names(options.files)
    is_alone = len(documents) == 1 and (
        options.files == ["."] or split_pattern(options.files[0]) is None
    )
    context = documents[0] if is_alone else dict(zip(names, documents, strict=True))
    corpus = (
        build_lazily(context, encoding=encoding, errors=options.errors)
        if on_demand
        else Corpus.build(context, encoding=encoding, errors=options.errors, texts=texts)
    )
    if not corpus.characters:
        corpus.close()
        raise InputError(f"there is no text in {', '.join(map(quote_file, options.files))}")
    given = dict(zip(names, options.files, strict=True))
    for source in corpus.sources:
        if not source.length and source.name in given:  # in a folder, that is common
            say(f"{quote_file(given[source.name])} is empty")
    if corpus.left_out:
        say(count_reasons(corpus.left_out))
    return corpus


def _names(files: Sequence[str]) -> list[str]:
    """The names of the texts: as much of the end of each path as tells it from the others. A file
    that is given again has a number.
    """
    from rlm_integrations.corpus.source import is_name

    paths = [_parts(file) for file in files]
    names = [""] * len(files)
    for length in range(1, max(map(len, paths)) + 1):
        ends = [quote_file("/".join(path[-length:])) for path in paths]
        counts = Counter(ends)
        for number, end in enumerate(ends):
            if not names[number] and (counts[end] == 1 or length == len(paths[number])):
                names[number] = end if is_name(end) else ascii(end)[1:-1]
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        names[number] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _parts(file: str) -> tuple[str, ...]:
    from rlm_integrations.corpus.folder import split_pattern

    if file == "-":
        return ("stdin",)
    folder = split_pattern(file)
    path = Path(file) if folder is None else folder[0]
    return path.parts if path.name not in {"", ".."} else (path.resolve().name or "files",)


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
    from rlm_integrations.corpus.source_document import SourceDocument

    text = _decode(path.read_bytes(), repr(file), encoding, errors)
    return SourceDocument(text, {"file": path.name}, label=path.name)


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
