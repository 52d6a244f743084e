"""Reads a context into stored texts: strings, paths and documents of frameworks, one at a time."""

import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from io import IOBase
from pathlib import Path
from typing import Any, Final

from rlm_integrations.corpus.archives import Unpack, members, unpacked_name, unpacker
from rlm_integrations.corpus.data import Data, is_json_data, read_data
from rlm_integrations.corpus.document_reader import DocumentReader
from rlm_integrations.corpus.fixed_width import StoredText
from rlm_integrations.corpus.folder import Folder
from rlm_integrations.corpus.layout import Layout
from rlm_integrations.corpus.source import is_name
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import ContextError, MissingExtraError
from rlm_integrations.records import undecodable

# Integers with more bits become hexadecimal: Python writes at most 4,300 decimal digits.
_MAX_DECIMAL_BITS: Final = 10_000


def check_encoding(encoding: str, errors: str) -> None:
    """Refuse an encoding or error handler that Python does not have.

    Raises:
        ContextError: One of them is unknown.
    """
    if (why := undecodable(encoding, errors)) is not None:
        raise ContextError(why)


def check_text_name(name: object) -> None:
    """Refuse a name that no text may have.

    Raises:
        ContextError: It is one.
    """
    if not is_name(name):
        raise ContextError(
            f"the name of a text must be a printable string that is not empty, not {name!r:.99}"
        )


def read_document(thing: object) -> SourceDocument | None:
    """The object as one document, or None if it is not a document."""
    if isinstance(thing, SourceDocument):
        return thing
    if isinstance(thing, str):
        return SourceDocument(thing)
    if isinstance(thing, os.PathLike):
        name = Path(os.fsdecode(thing)).name
        return SourceDocument(thing, {"file": name}, label=unpacked_name(thing) or name)
    if (data := read_data(thing)) is not None:
        return data
    metadata = getattr(thing, "metadata", None)
    if not isinstance(metadata, Mapping):
        return None
    text = getattr(thing, "page_content", None)  # LangChain
    if not isinstance(text, str):
        # LlamaIndex; by default without the metadata
        get_content = getattr(thing, "get_content", None)
        text = get_content() if callable(get_content) else getattr(thing, "text", None)
    if not isinstance(text, str):
        return None
    own_id = getattr(thing, "id_", None) or getattr(thing, "id", None)
    known, hidden = json_safe(metadata), _hidden(thing)
    return SourceDocument(
        text,
        known,
        None if own_id is None else str(own_id),
        hidden,
        label=(label := _page_of(known, hidden)),
        layout=None if label is None else Layout("part"),
    )


def _page_of(metadata: Mapping[str, Any], hidden: frozenset[str]) -> str | None:
    """The page that a document of a framework is, if its loader says so; its own lines are not
    those of the file. The key `page` alone counts from 0 or from 1.
    """
    page = _first(metadata, ("page_label", "page_number"), hidden)
    file = _first(metadata, ("file_name", "source"), hidden) if page else None
    if not isinstance(file, str) or not isinstance(page, str | int):
        return None
    label = f"{Path(file).name} p. {page}"
    return label if is_name(label) else None


def _first(metadata: Mapping[str, Any], keys: Iterable[str], hidden: frozenset[str]) -> Any:
    """The first of these values that is there and not hidden; else None."""
    return next((metadata[key] for key in keys if metadata.get(key) and key not in hidden), None)


def _hidden(thing: object) -> frozenset[str]:
    """The metadata keys that a LlamaIndex node, or the node in a result, excludes from prompts."""
    keys = getattr(getattr(thing, "node", thing), "excluded_llm_metadata_keys", None)
    return (
        frozenset(map(str, keys))
        if isinstance(keys, list | tuple | set | frozenset) and keys
        else frozenset()
    )


def documents(context: object, left_out: dict[str, str]) -> tuple[Iterator[SourceDocument], bool]:
    """The documents of a context, one at a time, and whether it may have several.

    Args:
        context: One document, an iterable or a mapping of documents, or a folder.
        left_out: Receives the files of folders that are left out, and why.

    Raises:
        ContextError: The context, or one of its items, is not a document.
    """
    if (files := _files_in(context, "", left_out)) is not None:
        return files, True
    if (single := read_document(Data(context) if is_json_data(context) else context)) is not None:
        return iter([single]), False
    if isinstance(context, Mapping):
        return _named(context, left_out), True
    if isinstance(
        context, str | bytes | bytearray | memoryview | AbstractSet | IOBase
    ) or not isinstance(context, Iterable):
        raise ContextError(f"the context is {_described(context)}")
    return _items(context), True


def read_all(
    each_document: Iterable[SourceDocument], reader: DocumentReader, left_out: dict[str, str]
) -> Iterator[tuple[SourceDocument, StoredText, str]]:
    """What `DocumentReader.read` returns for each document. Optional ones that cannot be read are
    left out.

    Raises:
        ContextError: Another one cannot be read.
    """
    for document in each_document:
        found = read_one(document, reader, left_out)
        if found is not None:
            yield found


def read_one(
    document: SourceDocument, reader: DocumentReader, left_out: dict[str, str]
) -> tuple[SourceDocument, StoredText, str] | None:
    """What `DocumentReader.read` returns. None for an optional document that cannot be read: it is
    left out.

    Raises:
        ContextError: Another one cannot be read.
    """
    try:
        return reader.read(document)
    except (ContextError, MissingExtraError) as error:
        if not document.is_optional:
            raise
        reader.writer.finish()  # the next text begins after what was written
        left_out[document.name or ""] = (
            f"needs rlm-integrations[{error.extra}]"
            if isinstance(error, MissingExtraError)
            else getattr(error, "reason", "unreadable")
        )
        return None


def _items(context: Iterable[Any]) -> Iterator[SourceDocument]:
    for number, item in enumerate(context):
        found = read_document(item)
        if found is None:
            raise ContextError(f"item {number} of the context is {_described(item)}")
        yield found


def _named(texts: Mapping[Any, Any], left_out: dict[str, str]) -> Iterator[SourceDocument]:
    seen: set[str] = set()
    for document in _each_named(texts, left_out):
        if document.name in seen:
            raise ContextError(f"two texts of the context have the name {document.name!r}")
        seen.add(document.name or "")
        yield document


def _each_named(texts: Mapping[Any, Any], left_out: dict[str, str]) -> Iterator[SourceDocument]:
    for name, item in texts.items():
        check_text_name(name)
        files = _files_in(item, f"{name}/", left_out)
        if files is not None:
            yield from files
            continue
        found = read_document(item)
        if found is None:
            raise ContextError(f"{name!r} of the context is {_described(item)}")
        layout = found.layout if found.layout is not None and found.layout.unit != "part" else None
        yield replace(found, name=str(name), label=str(name), layout=layout)


def _described(thing: object) -> str:
    """The description of an invalid context, and what to do about it."""
    if thing is None:
        return "None: pass a string, a path, a document, or a list of these"
    kind = type(thing).__name__
    if isinstance(thing, bytes | bytearray | memoryview):
        return (
            f"{kind}, not text: decode it first, such as context.decode('utf-8'), or pass the"
            " file's path"
        )
    if isinstance(thing, Mapping):
        return f"a {kind}: pass its texts, or Data(…) of it"
    if isinstance(thing, AbstractSet):
        return f"a {kind}, which has no order: pass a list, such as sorted(…)"
    if isinstance(thing, IOBase):
        return f"an open file ({kind}): pass its path, or its content, file.read()"
    if isinstance(thing, AsyncIterable):
        return f"asynchronous ({kind}): collect it first, [item async for item in …]"
    if isinstance(thing, list | tuple):
        return f"a {kind}: pass one flat list of strings, paths or documents"
    return f"of type {kind}: pass a string, a path, a document, data, or a list or dict of these"


def _files_in(
    thing: object, prefix: str, left_out: dict[str, str]
) -> Iterator[SourceDocument] | None:
    """The files of the folder, the pattern or the archive that a path names; None for others."""
    if not isinstance(thing, os.PathLike):
        return None
    path = Path(os.fsdecode(thing))
    if (folder := Folder.of(path)) is not None:
        return _files(folder, prefix, left_out)
    unpack = unpacker(path)
    return None if unpack is None else _members(path, unpack, prefix, left_out)


def _files(folder: Folder, prefix: str, left_out: dict[str, str]) -> Iterator[SourceDocument]:
    left_out.update((f"{prefix}{path}", why) for path, why in folder.left_out.items())
    size = 0
    for path in folder.files:
        yield file_of(folder.root, path, prefix)
        if f"{prefix}{path}" not in left_out:
            size += folder.sizes[path]
        folder.check_size(size)


def file_of(root: Path, path: str, prefix: str) -> SourceDocument:
    """The file at a relative path of a folder, whose names begin with this prefix."""
    return _optional(root / path, f"{prefix}{path}")


def _members(
    path: Path, unpack: Unpack, prefix: str, left_out: dict[str, str]
) -> Iterator[SourceDocument]:
    for name, content in members(path, unpack):
        if isinstance(content, str):
            left_out[f"{prefix}{name}"] = content
        else:
            yield _optional(content, f"{prefix}{name}")


def _optional(content: bytes | Path, name: str) -> SourceDocument:
    return SourceDocument(content, {"file": name}, name=name, label=name, is_optional=True)


def json_safe(value: object, within: tuple[int, ...] = ()) -> Any:
    """A copy in JSON's types.

    Other values become strings, as do circular and deeply nested ones.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if abs(value).bit_length() < _MAX_DECIMAL_BITS else hex(value)
    if isinstance(value, float) and value - value == 0:  # neither infinite nor nan
        return float(value)
    if id(value) not in within and len(within) < 20:
        within = (*within, id(value))
        if isinstance(value, Mapping):
            return {_key(key): json_safe(item, within) for key, item in value.items()}
        if isinstance(value, list | tuple | AbstractSet):
            return [json_safe(item, within) for item in value]
    return str(value)


def _key(key: object) -> str:
    return str(json_safe(key)) if isinstance(key, int) and not isinstance(key, bool) else str(key)
