"""Reads one document: the one way from a file to the text of a source."""

import os
from dataclasses import replace
from pathlib import Path

from rlm_integrations.corpus.archives import unpack_text, unpacked_name
from rlm_integrations.corpus.fixed_width import Memory, StoredText, Writer, identity, open_regular
from rlm_integrations.corpus.layout import Layout
from rlm_integrations.corpus.reading import decode_member, read_file
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.extraction.extractor import Extractor, NotTextError, format_of


class DocumentReader:
    """Reads documents into the memory of a corpus.

    Args:
        writer: Writes the texts that are not read in place.
        extractor: Extracts the texts of documents such as PDF files.
        encoding: The encoding of text files.
        errors: How bytes that are invalid in it are handled.
    """

    def __init__(self, writer: Writer, extractor: Extractor, encoding: str, errors: str) -> None:
        self.writer = writer
        self._extractor = extractor
        self._encoding = encoding
        self._errors = errors

    def read(self, document: SourceDocument) -> tuple[SourceDocument, StoredText, str]:
        """The document with what is known of it, its text at fixed width, and the SHA-256 of the
        text in UTF-8.

        Raises:
            NotTextError: The file has no text that can be read.
            MissingExtraError: The package for its format is not installed.
            ContextError: It cannot be read.
        """
        content = document.content
        if isinstance(content, str):
            return document, *self._write(content)
        if isinstance(content, bytes):
            return self._read_bytes(document, content, document.name or "")
        path = os.fsdecode(content)
        if not document.is_optional and (inner := unpacked_name(path)) is not None:
            return self._read_bytes(document, unpack_text(Path(path)), path, inner)
        if (kind := format_of(path)) is None:
            document = replace(document, layout=Layout.of_file(path))
            checks = document.is_optional
            read = read_file(path, self.writer, self._encoding, self._errors, checks_zeros=checks)
            return document, *read
        descriptor, before = open_regular(path)
        try:
            found = self._extract(document, descriptor, kind, path)
            if identity(os.fstat(descriptor)) != identity(before):
                raise NotTextError(
                    f"{path!r} changed while it was read: start again", "changed while it was read"
                )
            return found
        finally:
            os.close(descriptor)

    def _read_bytes(
        self, document: SourceDocument, data: bytes, name: str, inner: str | None = None
    ) -> tuple[SourceDocument, StoredText, str]:
        inner = name if inner is None else inner
        if (kind := format_of(inner)) is None:
            document = replace(document, layout=Layout.of_file(inner))
            return document, *self._write(decode_member(data, name, self._encoding, self._errors))
        with Memory() as memory:
            memory.write(data)
            return self._extract(document, memory.fd, kind, name)

    def _extract(
        self, document: SourceDocument, descriptor: int, kind: str, name: str
    ) -> tuple[SourceDocument, StoredText, str]:
        found = self._extractor.extract(descriptor, kind, name, self._encoding, self._errors)
        document = replace(
            document,
            metadata={**document.metadata, **found.properties},
            layout=Layout("part", found.starts, found.labels),
        )
        return document, *self._write(found.text)

    def _write(self, text: str) -> tuple[StoredText, str]:
        self.writer.append(text)
        return self.writer.finish()
