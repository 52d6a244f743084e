"""Reads a context into stored texts: strings, paths and documents of frameworks, one at a time."""

import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import IOBase
from pathlib import Path
from typing import Any, Final

from rlm_integrations.corpus.archives import Unpack, members, unpack_text, unpacked_name, unpacker
from rlm_integrations.corpus.fixed_width import StoredText, Writer
from rlm_integrations.corpus.folder import MAX_FOLDER_BYTES, Folder
from rlm_integrations.corpus.places import Place
from rlm_integrations.corpus.reading import decode_member, read_file
from rlm_integrations.corpus.source import Source, is_name
from rlm_integrations.errors import ContextError
from rlm_integrations.records import undecodable

# Integers with more bits become hexadecimal: Python writes at most 4,300 decimal digits.
_MAX_DECIMAL_BITS: Final = 10_000


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document before it is read.

    Attributes:
        content: The text, the bytes of a file, or the path of the file.
        metadata: In JSON's types.
        id: The document's own id, or None.
        hidden: The keys of `metadata` that no model may see.
        name: The key of a named text, or None.
        label: The name by which people know it: its key, or the name of its file. None for others.
        is_optional: Whether it is left out if it is not text, as the files of a folder are.
    """

    content: str | bytes | os.PathLike[Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    hidden: frozenset[str] = frozenset()
    name: str | None = None
    label: str | None = None
    is_optional: bool = False

    def source(self, number: int, place: Place, sha256: str) -> Source:
        """Its properties as source number `number` of a corpus, with its text at this place."""
        return Source.of_place(
            number,
            place,
            sha256,
            metadata=self.metadata,
            document_id=self.id,
            hidden=self.hidden,
            name=self.name,
            label=self.label,
        )

    def read(self, writer: Writer, encoding: str, errors: str) -> tuple[StoredText, str]:
        """The text at fixed width, written with `writer` unless it is read in place, and the
        SHA-256 of its UTF-8 bytes.

        Raises:
            NotTextError: The file is not text.
            ContextError: It cannot be read.
        """
        if isinstance(self.content, bytes):
            writer.append(decode_member(self.content, self.name or "", encoding, errors))
            return writer.finish()
        if not isinstance(self.content, str):
            path = os.fsdecode(self.content)
            if unpacked_name(path) is not None and not self.is_optional:
                data = unpack_text(Path(path))
                writer.append(decode_member(data, path, encoding, errors))
                return writer.finish()
            return read_file(path, writer, encoding, errors, checks_zeros=self.is_optional)
        writer.append(self.content)
        return writer.finish()


def check_encoding(encoding: str, errors: str) -> None:
    """Refuse an encoding or error handler that Python does not have.

    Raises:
        ContextError: One of them is unknown.
    """
    if (why := undecodable(encoding, errors)) is not None:
        raise ContextError(why)


def read_document(thing: object) -> SourceDocument | None:
    """The object as one document, or None if it is not a document."""
    if isinstance(thing, SourceDocument):
        return thing
    if isinstance(thing, str):
        return SourceDocument(thing)
    if isinstance(thing, os.PathLike):
        name = Path(os.fsdecode(thing)).name
        return SourceDocument(thing, {"file": name}, label=unpacked_name(thing) or name)
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
    return SourceDocument(
        text, json_safe(metadata), None if own_id is None else str(own_id), _hidden(thing)
    )


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
    if (single := read_document(context)) is not None:
        return iter([single]), False
    if isinstance(context, Mapping):
        return _named(context, left_out), True
    if isinstance(
        context, str | bytes | bytearray | memoryview | AbstractSet | IOBase
    ) or not isinstance(context, Iterable):
        raise ContextError(f"the context is {_described(context)}")
    return _items(context), True


def read_all(
    each_document: Iterable[SourceDocument],
    writer: Writer,
    encoding: str,
    errors: str,
    left_out: dict[str, str],
) -> Iterator[tuple[SourceDocument, StoredText, str]]:
    """The documents with what `SourceDocument.read` returns. Optional ones that cannot be read are
    left out.

    Raises:
        ContextError: Another one cannot be read.
    """
    for document in each_document:
        try:
            run, sha256 = document.read(writer, encoding, errors)
        except ContextError as error:
            if not document.is_optional:
                raise
            writer.finish()  # the next text begins after what was written
            left_out[document.name or ""] = getattr(error, "reason", "unreadable")
        else:
            yield document, run, sha256


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
        if not is_name(name):
            raise ContextError(
                f"the name of a text must be a printable string that is not empty, not {name!r:.99}"
            )
        files = _files_in(item, f"{name}/", left_out)
        if files is not None:
            yield from files
            continue
        found = read_document(item)
        if found is None:
            raise ContextError(f"{name!r} of the context is {_described(item)}")
        yield replace(found, name=str(name), label=str(name))


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
        return f"a {kind}: pass its texts, or json.dumps(…) of it"
    if isinstance(thing, AbstractSet):
        return f"a {kind}, which has no order: pass a list, such as sorted(…)"
    if isinstance(thing, IOBase):
        return f"an open file ({kind}): pass its path, or its content, file.read()"
    if isinstance(thing, AsyncIterable):
        return f"asynchronous ({kind}): collect it first, [item async for item in …]"
    if isinstance(thing, list | tuple):
        return f"a {kind}: pass one flat list of strings, paths or documents"
    return f"of type {kind}: pass a string, a path, a document, or a list or dict of these"


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
        file, name = folder.root / path, f"{prefix}{path}"
        yield _optional(file, name)
        if name not in left_out:
            with suppress(OSError):
                size += file.stat().st_size
        if size > MAX_FOLDER_BYTES:
            raise ContextError(
                f"{str(folder.root)!r} has more than {MAX_FOLDER_BYTES / 1e9:g} GB of text: pass a "
                "smaller folder, or a pattern such as Path('src/**/*.py')"
            )


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
