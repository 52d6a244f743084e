"""The readable text of HTML."""

import codecs
import re
from html.parser import HTMLParser
from typing import Final

from rlm_integrations.extraction.builder import TextBuilder

_SKIPPED: Final = frozenset("script style template noscript svg math object iframe".split())
_BLOCKS: Final = frozenset(
    """
    address article aside blockquote body br caption center dd details dialog dir div dl dt
    fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main
    menu nav ol optgroup option p pre search section select summary table tbody tfoot thead title
    tr ul
    """.split()
)
_OMITTED: Final = {
    "img": "images",
    "svg": "images",
    "audio": "media",
    "video": "media",
    "object": "embedded objects",
    "embed": "embedded objects",
    "iframe": "frames",
    "math": "formulas",
}
_CHARSET: Final = re.compile(
    rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE
)
_DECLARED: Final = re.compile(rb"""<\?xml[^>]{0,300}?encoding\s*=\s*["']([\w.:-]{1,40})""")
_BOMS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEARCHED: Final = 2_048  # bytes


def decode_html(data: bytes, encoding: str, errors: str) -> str:
    """The source of a page, in the encoding that it declares, else in the given one.

    Raises:
        UnicodeError: It is not valid.
    """
    for mark, named in _BOMS.items():
        if data.startswith(mark):
            return data.decode(named, errors)
    start = data[:_SEARCHED]
    declared = _DECLARED.match(start) or _CHARSET.search(start)
    if declared:
        try:
            named = codecs.lookup(declared[1].decode()).name
        except LookupError:
            named = encoding
        # A page that can be searched for ASCII is not in one of these, whatever it declares
        encoding = encoding if named.startswith(("utf-16", "utf-32")) else named
    return data.decode(encoding, errors)


def add_html(source: str, builder: TextBuilder, *, has_lines: bool = False) -> None:
    """Add the text that readers of a page see.

    Args:
        source: The page.
        builder: Receives the text.
        has_lines: Whether the lines of the page are its parts.
    """
    parser = _HtmlText(builder, has_lines=has_lines)
    parser.feed(source)
    parser.close()


class _HtmlText(HTMLParser):
    """Adds the text of a page to a builder: blocks on lines of their own, cells between tabs, other
    white space as single spaces.
    """

    def __init__(self, builder: TextBuilder, *, has_lines: bool) -> None:
        super().__init__()
        self._builder = builder
        self._has_lines = has_lines
        self._skipping: list[str] = []  # elements that are skipped, the outermost first
        self._preformatted = 0
        self._cells = 0  # of the row so far
        self._space = ""  # to be added before the next text
        self._is_empty = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Begin an element."""
        if tag in _OMITTED and not self._skipping:
            self._builder.omit(_OMITTED[tag])
        if tag in _SKIPPED:
            self._skipping.append(tag)
        elif self._skipping:
            return
        elif tag in _BLOCKS:
            self._break(tag)
            self._preformatted += tag == "pre"
        elif tag in {"td", "th"}:
            if self._cells:
                self._space = self._space.strip(" ") + "\t"
            self._cells += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content; in HTML others than SVG's are not closed by a slash."""
        self.handle_starttag(tag, attrs)
        if self._skipping and self._skipping[-1] == tag:
            self._skipping.pop()

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        if tag in self._skipping:
            while self._skipping.pop() != tag:
                pass
        elif tag in _BLOCKS and not self._skipping:
            self._break(tag)
            if tag == "pre" and self._preformatted:
                self._preformatted -= 1

    def handle_data(self, data: str) -> None:
        """Add text."""
        if self._skipping:
            return
        line = self.getpos()[0]
        for number, raw in enumerate(data.split("\n")):
            if number:
                self._blank("\n" if self._preformatted else " ")
            if self._preformatted:
                self._add(raw, line + number)
                continue
            words = raw.split()
            if raw[:1].isspace():
                self._blank(" ")
            if words:
                self._add(" ".join(words), line + number)
                if raw[-1].isspace():
                    self._blank(" ")

    def _blank(self, space: str) -> None:
        if self._preformatted and space == "\n":
            self._space += space
        else:
            self._space = self._space or space

    def _break(self, tag: str) -> None:
        if tag == "tr":
            self._space, self._cells = "\n", 0
        elif self._space in {"", " "}:
            self._space = "\n"

    def _add(self, text: str, line: int) -> None:
        if not text:
            return
        if not self._is_empty:
            self._builder.add(self._space)
        self._space, self._is_empty = "", False
        if self._has_lines:
            self._builder.begin(f":{line}")
        self._builder.add(text)


def extract_html(data: bytes, builder: TextBuilder, encoding: str, errors: str) -> None:
    """Add the text of a page; its parts are the lines of the file.

    Raises:
        UnicodeError: It is not valid in its encoding.
    """
    builder.properties["format"] = "HTML"
    add_html(decode_html(data, encoding, errors), builder, has_lines=True)
