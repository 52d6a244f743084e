"""The text of EPUB files."""

import posixpath
from typing import IO, Final
from urllib.parse import unquote
from xml.parsers.expat import ExpatError

from rlm_integrations.extraction.builder import TextBuilder, UnreadableError
from rlm_integrations.extraction.html import add_html, decode_html
from rlm_integrations.extraction.zipped import ZippedDocument, xml_parser

_CONTAINER: Final = "META-INF/container.xml"
_ENCRYPTION: Final = "META-INF/encryption.xml"


def extract_epub(file: IO[bytes], builder: TextBuilder) -> None:
    """Add the sections of the book in reading order.

    Raises:
        UnreadableError: It is encrypted or damaged.
    """
    archive = ZippedDocument(file, "EPUB")
    package = next(iter(_values(archive, _CONTAINER, "rootfile", "full-path")), None)
    if package is None:
        raise archive.damaged("it names no book")
    items = _elements(archive, package, "item")
    paths = {
        each["id"]: posixpath.normpath(
            posixpath.join(posixpath.dirname(package), unquote(each["href"]))
        )
        for each in items
        if "id" in each and "href" in each
    }
    order = [paths[each] for each in _values(archive, package, "itemref", "idref") if each in paths]
    if _ENCRYPTION in archive.names:  # often of fonts only
        encrypted = set(map(unquote, _values(archive, _ENCRYPTION, "CipherReference", "URI")))
        if encrypted.intersection(order):
            raise UnreadableError("is protected: its text is encrypted", "encrypted")
    builder.properties |= {"format": "EPUB", "sections": len(order)}
    for number, path in enumerate(order, 1):
        if number > 1:
            builder.add("\n\f")
        builder.begin(f" section {number}")
        data = archive.read(path)
        try:
            add_html(decode_html(data, "utf-8", "strict"), builder)
        except UnicodeError as error:
            raise archive.damaged(str(error)) from error


def _values(archive: ZippedDocument, name: str, element: str, attribute: str) -> list[str]:
    found = _elements(archive, name, element)
    return [each[attribute] for each in found if attribute in each]


def _elements(archive: ZippedDocument, name: str, element: str) -> list[dict[str, str]]:
    """The attributes of all elements of this name in a member that is XML."""
    found: list[dict[str, str]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag.rpartition(" ")[2] == element:
            found.append(attributes)

    parser = xml_parser()
    parser.StartElementHandler = start
    try:
        parser.Parse(archive.read(name), True)
    except ExpatError as error:
        raise archive.damaged(str(error)) from error
    return found
