"""The text of DOCX files."""

import posixpath
from typing import IO, Final
from xml.parsers.expat import ExpatError

from rlm_integrations.extraction.builder import TextBuilder
from rlm_integrations.extraction.zipped import ZippedDocument, xml_parser

_WORD: Final = (
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main ",
    "http://purl.oclc.org/ooxml/wordprocessingml/main ",
)
_CHARACTERS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}
_NOTES: Final = {"footnotes.xml": "footnote", "endnotes.xml": "endnote"}


def extract_docx(file: IO[bytes], builder: TextBuilder) -> None:
    """Add the paragraphs, cells of tables between tabs, then the notes.

    Raises:
        UnreadableError: It is encrypted or damaged.
    """
    archive = ZippedDocument(file, "DOCX")
    main = _main_part(archive)
    folder = posixpath.dirname(main)
    text = _WordText(builder)
    text.read(archive, main)
    paragraphs = text.count
    for name, what in _NOTES.items():
        if (part := posixpath.join(folder, name)) in archive.names:
            text.read(archive, part, what)
    comments = posixpath.join(folder, "comments.xml")
    if comments in archive.names:
        builder.omit("comments", archive.read(comments).count(b"<w:comment "))
    others = [posixpath.basename(name) for name in archive.names if name.startswith(f"{folder}/")]
    builder.omit(
        "headers and footers", sum(each.startswith(("header", "footer")) for each in others)
    )
    builder.omit("images", sum(f"{folder}/media/" in name for name in archive.names))
    builder.omit("embedded objects", sum("/embeddings/" in name for name in archive.names))
    builder.properties |= {
        "format": "DOCX",
        "paragraphs": paragraphs,
        "unknown": "pages, and numbers of lists and headings, which Word computes",
    }


def _main_part(archive: ZippedDocument) -> str:
    found: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.endswith(" Relationship") and attributes.get("Type", "").endswith(
            "/officeDocument"
        ):
            found.append(attributes.get("Target", "").lstrip("/"))

    parser = xml_parser()
    parser.StartElementHandler = start
    try:
        parser.Parse(archive.read("_rels/.rels"), True)
    except ExpatError as error:
        raise archive.damaged(str(error)) from error
    if not found:
        raise archive.damaged("it has no text")
    return found[0]


class _WordText:
    """Adds the text of parts of a Word document to a builder."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._note = ""  # what the paragraphs are, if not paragraphs of the text
        self.count = 0  # of paragraphs, or of notes
        self._skipped = 0  # open elements of a copy for old versions
        self._cells = 0  # open cells
        self._runs = 0  # open runs of characters
        self._is_text = False
        self._space = ""

    def read(self, archive: ZippedDocument, name: str, note: str = "") -> None:
        """Add the text of a part: its paragraphs, or its notes."""
        self._note, self.count = note, 0
        parser = xml_parser()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(archive.read(name), True)
        except ExpatError as error:
            raise archive.damaged(str(error)) from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        kind = _kind(name)
        if name.endswith(" Fallback") or self._skipped:
            self._skipped += 1
        elif self._note and kind == self._note:
            if any(key.endswith(" type") for key in attributes):  # a line above the notes
                self._skipped += 1
            else:
                self.count += 1
        elif kind == "p":
            if not self._cells:
                self._space = "\n"
            self.count += not self._note
        elif kind == "t":
            self._is_text = True
        elif kind == "tc":
            self._cells += 1
        elif kind == "r":
            self._runs += 1
        elif self._runs and kind in _CHARACTERS:  # elsewhere, tabs are settings
            self._add(_CHARACTERS[kind])

    def _end(self, name: str) -> None:
        kind = _kind(name)
        if self._skipped:
            self._skipped -= 1
        elif kind == "t":
            self._is_text = False
        elif kind == "r":
            self._runs -= 1
        elif kind == "p":
            self._space = self._space or (" " if self._cells else "\n")
        elif kind == "tc":
            self._cells -= 1
            self._space = self._space.rstrip(" ") + "\t"
        elif kind == "tr":
            self._space = "\n"

    def _characters(self, text: str) -> None:
        if self._is_text and not self._skipped:
            self._add(text)

    def _add(self, text: str) -> None:
        if self._builder.length:
            self._builder.add(self._space)
        self._space = ""
        self._builder.begin(f" {self._note or 'paragraph'} {self.count}")
        self._builder.add(text)


def _kind(name: str) -> str:
    return next((name.removeprefix(each) for each in _WORD if name.startswith(each)), "")
