"""Documents of every day: their text, what people call its places, and hostile files."""

import asyncio
import gzip
import os
import signal
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.locations import find_locations
from rlm_integrations.engine.threads import build_corpus
from rlm_integrations.errors import ContextError, MissingExtraError, StorageError
from rlm_integrations.extraction import child, extractor, time_limit
from rlm_integrations.extraction.builder import number_ranges
from rlm_integrations.records import SpanRef
from rlm_integrations.storage import Storage
from tests._formats import docx_of, epub_of, page_of, pdf_of, zip_of

NOT_LATIN = "Zażółć gęślą jaźń"


def located(corpus: Corpus, words: str, source: str = "context_0") -> str:
    """The location of these words."""
    at = corpus.text(source).index(words)
    span = SpanRef(source, at, at + len(words))
    return find_locations(corpus, [span])[span]


def read_by_child(kind: str, data: bytes, path: Path) -> tuple[dict[str, Any], str]:
    """What the reader's process would answer."""
    path.write_bytes(data)
    asked = {"format": kind, "encoding": "utf-8", "errors": "strict", "seconds": 250}
    description, text = child.answer(asked, os.open(path, os.O_RDONLY))
    return description, text.decode()


def test_a_folder_of_documents_is_read_and_cited_in_place(tmp_path: Path) -> None:
    """One process reads all documents of a folder; each text is cited by page, section, message,
    paragraph, row, path or line; what cannot be read is counted with its reason.
    """
    files = {
        "report.pdf": pdf_of([page_of("The rent is due.", "On the first."), page_of("Paid late.")]),
        "scan.pdf": pdf_of([b"", b""], images=2),
        "broken.pdf": b"%PDF-1.7 nothing else",
        "page.html": b"<title>Lease</title>\n<p>The garden\nis shared.</p>",
        "letter.docx": docx_of(
            "<w:p><w:r><w:t>Dear Ada,</w:t></w:r></w:p><w:p/><w:p><w:r><w:t>Yes.</w:t></w:r></w:p>"
        ),
        "book.epub": epub_of(["<p>Rain fell.</p>", "<h1>Two</h1><p>Snow fell.</p>"]),
        "mail.mbox": b"From a\nFrom: ada@example.org\n\nOne\n\nFrom b\nSubject: Late\n\nTwo\n",
        "note.eml": b"Subject: Note\n\nThree\n",
        "data.csv": b'name,said\nada,"yes\nno"\nbob,never\n',
        "data.json": b'{"items": [{"name": "Ada"}]}',
        "rows.jsonl": b'{"a": 1}\n{"a": 22}\n',
        "read.md": b"# Title\n\nText\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with Corpus.build(tmp_path) as corpus:
        assert corpus.left_out == {"broken.pdf": "damaged", "scan.pdf": "a scan, without text"}
        for name, words, location in [
            ("report.pdf", "The rent", "report.pdf p. 1"),
            ("report.pdf", "Paid", "report.pdf p. 2"),
            ("page.html", "is shared", "page.html:3"),
            ("letter.docx", "Yes.", "letter.docx paragraph 3"),
            ("book.epub", "Snow", "book.epub section 2"),
            ("mail.mbox", "Two", "mail.mbox message 2"),
            ("note.eml", "Three", "note.eml"),
            ("data.csv", "no", "data.csv row 2, column said"),
            ("data.csv", "bob,never", "data.csv row 3"),
            ("data.json", "Ada", "data.json $.items[0].name"),
            ("rows.jsonl", "22", "rows.jsonl:2"),
            ("read.md", "Text", "read.md:3"),
        ]:
            assert located(corpus, words, name) == location
        described = {each["name"]: each["metadata"] for each in corpus.metadata["sources"]}
        assert described["report.pdf"] == {"file": "report.pdf", "format": "PDF", "pages": 2}
        assert described["data.csv"] == {"file": "data.csv"}
        assert corpus.text("report.pdf").split("\n\f")[1] == "Paid late.\n"


def test_a_stored_document_keeps_its_places(tmp_path: Path) -> None:
    """A document that is read back from a storage is cited by page, without the file; so are files
    in archives and compressed ones; a part of a document is plain text.
    """
    from rlm_integrations.storage.stored_corpus import keep_corpus, read_corpus

    pdf = pdf_of([page_of("One"), page_of("Two")])
    (tmp_path / "x.pdf.gz").write_bytes(gzip.compress(pdf))
    (tmp_path / "x.zip").write_bytes(zip_of({"report.pdf": pdf}))
    context = {"packed": tmp_path / "x.pdf.gz", "archive": tmp_path / "x.zip"}
    with Storage(tmp_path / "runs") as storage, Corpus.build(context) as corpus:
        sha256, _ = keep_corpus(storage.lake, corpus)
        with read_corpus(storage.lake, sha256) as again:
            assert located(again, "Two", "packed") == "packed p. 2"
            assert located(again, "Two", "archive/report.pdf") == "archive/report.pdf p. 2"
            assert again.sources == corpus.sources
        with corpus.slice([SpanRef("packed", 2, 4)]) as part:
            assert part.sources[0].layout is None


def unreadable(_: str) -> bytes:
    """A blob that is gone."""
    raise StorageError("gone")


async def test_a_text_is_extracted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a storage, a file is not read again: also not by another run, and under another name. A
    text that was pruned, or is gone from the storage, is read again.
    """
    path = tmp_path / "a.eml"
    path.write_bytes(b"Subject: x\n\nAda approved the dam.")
    reads: list[str] = []
    read = extractor.Extractor._read

    def noted(self: extractor.Extractor, *given: Any) -> Any:
        reads.append(Path(given[2]).name)
        return read(self, *given)

    monkeypatch.setattr(extractor.Extractor, "_read", noted)
    with Storage(tmp_path / "runs") as storage:
        rlm = RLM("offline", storage=storage)
        first = await rlm.acompletion("Who approved the dam?", path)
        assert [each.location for each in first.citations] == ["a.eml"]
        path = path.rename(tmp_path / "b.eml")
        again = await rlm.acompletion("Who approved the dam?", path)
        assert (reads, again.citations[0].location) == (["a.eml"], "b.eml")
        assert again.sources[0].sha256 == first.sources[0].sha256
        storage.prune(older_than=timedelta(microseconds=1))
        with Corpus.build(path, texts=storage.texts) as corpus:
            assert (reads, located(corpus, "Ada")) == (["a.eml", "b.eml"], "b.eml")
        monkeypatch.setattr(storage.lake, "get", unreadable)
        Corpus.build(path, texts=storage.texts).close()
        assert reads == ["a.eml", "b.eml", "b.eml"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            pdf_of([b"", b""], images=3),
            r"'.*x\.pdf' has no text: it is a scan \(2 pages, 3 images\)",
        ),
        (b"%PDF-1.7", "is not a readable PDF: it is damaged"),
        (b"", "is not a readable PDF: it is damaged"),
        (pdf_of([]), "it has no pages"),
        (
            pdf_of(
                [page_of("x")],
                trailer=b"/ID [(1) (1)] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <"
                + b"00" * 32
                + b"> /U <"
                + b"00" * 32
                + b"> >>",
            ),
            "has a password: remove it first",
        ),
    ],
)
def test_a_pdf_without_readable_text_is_an_error(tmp_path: Path, data: bytes, message: str) -> None:
    """A scan, a damaged file and one with a password are errors that say so."""
    path = tmp_path / "x.pdf"
    path.write_bytes(data)
    with pytest.raises(ContextError, match=message):
        Corpus.build(path)


def test_a_pdf_says_what_it_lacks(tmp_path: Path) -> None:
    """Pages without text, damaged pages and images are counted, an image of many pages once; too
    many pages are an error.
    """
    pages = [page_of("One"), b"", page_of("Three"), b"", b""]
    described, text = read_by_child("pdf", pdf_of(pages, images=1), tmp_path / "x.pdf")
    assert described["properties"] == {
        "format": "PDF",
        "pages": 5,
        "pages_without_text": "2, 4-5",
        "not_included": {"images": 1},
    }
    assert (described["starts"], described["labels"][2]) == ([0, 6, 8, 16, 18], " p. 3")
    assert text == "One\n\n\f\n\fThree\n\n\f\n\f"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>a<b>b</b> c</p>d", "ab c\nd"),
        ("a\n\n  b<br>c<script>x<y</script><style>z</style>d", "a b\ncd"),
        (
            "<table><tr><td>1<td><td>3</tr><tr><th>4</th><td><p>5</p></td></tr></table>",
            "1\t\t3\n4\t5",
        ),
        ("<pre>a\n\n  b</pre>c", "a\n\n  b\nc"),
        ("<ul><li>a<li>b</ul>&eacute;&nbsp;&lt;x&gt;", "a\nb\né <x>"),
        ("a<svg><text>x</text></svg><template><p>y</template>b<!-- c -->", "ab"),
        ("<meta charset=latin-1>\xe9".encode("latin-1"), "é"),
        ("<p>é".encode("utf-16"), "é"),
        ("<meta charset=utf-16><p>x", "x"),
        ("<meta charset=unheard-of><p>x", "x"),
        ("</p></script><td>a", "a"),
        ("", ""),
    ],
)
def test_html_becomes_readable_text(tmp_path: Path, source: str | bytes, text: str) -> None:
    """Blocks are lines, cells are between tabs, white space is as shown, scripts are left out, and
    the declared encoding counts.
    """
    data = source.encode() if isinstance(source, str) else source
    assert read_by_child("html", data, tmp_path / "x.html")[1] == text


def test_html_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    """Bytes that are not valid are an error, which names what can be done."""
    described, _ = read_by_child("html", b"\xe9", tmp_path / "x.html")
    assert "pass its encoding, or errors='replace'" in described["error"]


def test_docx_has_tables_notes_and_counts(tmp_path: Path) -> None:
    """Cells are between tabs, empty ones included; deleted text and copies for old versions are
    left out; notes come last; pages are unknown; images and comments are counted.
    """

    def words(text: str) -> str:
        return f"<w:r><w:t>{text}</w:t></w:r>"

    def cell(text: str) -> str:
        return f"<w:tc><w:p>{words(text)}</w:p></w:tc>"

    body = (
        f"<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>{words('a')}<w:r><w:tab/><w:br/></w:r>"
        f"{words('b')}<w:del><w:r><w:delText>no</w:delText></w:r></w:del></w:p>"
        f"<w:tbl><w:tr>{cell('1')}<w:tc><w:p/></w:tc>{cell('3')}</w:tr><w:tr>{cell('4')}"
        f"<w:tc><w:p>{words('5')}</w:p><w:p>{words('6')}</w:p></w:tc></w:tr></w:tbl>"
        f'<x:y xmlns:x="mc"><x:Fallback><w:p>{words("twice")}</w:p></x:Fallback></x:y>'
        f"<w:p>{words(NOT_LATIN)}</w:p>"
    )
    word = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    notes = (
        f'<w:footnotes {word}><w:footnote w:type="separator"><w:p>{words("-")}</w:p></w:footnote>'
        f"<w:footnote><w:p>{words('Note.')}</w:p></w:footnote></w:footnotes>"
    )
    comments = f"<w:comments {word}><w:comment w:id='1'/><w:comment w:id='2'/></w:comments>"
    data = docx_of(body, footnotes=notes, comments=comments, header1="<x/>", **{"media/a": "x"})
    described, text = read_by_child("docx", data, tmp_path / "x.docx")
    assert text == f"a\t\nb\n1\t\t3\n4\t5 6\n{NOT_LATIN}\nNote."
    assert described["labels"][-2:] == [" paragraph 8", " footnote 1"]
    assert described["properties"] == {
        "format": "DOCX",
        "paragraphs": 8,
        "not_included": {"comments": 2, "headers and footers": 1, "images": 1},
        "unknown": "pages, and numbers of lists and headings, which Word computes",
    }


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
PROTECTED = '<e><CipherReference URI="OPS/s%200.xhtml"/></e>'


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("docx", b"\xd0\xcf\x11\xe0", "has a password, or is of an old version of Office"),
        ("docx", b"nothing", "is not a readable DOCX: it is damaged"),
        ("docx", zip_of({"a": "b"}), "it has no '_rels/.rels'"),
        ("docx", zip_of({"_rels/.rels": "<x/>"}), "it has no text"),
        ("docx", zip_of({"_rels/.rels": BOMB}), "has entity declarations"),
        ("docx", docx_of("<w:p>"), "is not a readable DOCX: it is damaged"),
        ("epub", zip_of({"META-INF/container.xml": BOMB}), "has entity declarations"),
        ("epub", zip_of({"META-INF/container.xml": "<x/>"}), "it names no book"),
        ("epub", epub_of(["x"], encryption=PROTECTED), "its text is encrypted"),
        ("eml", b"no header", "is no message: it has no headers"),
        ("mbox", b"Subject: x\n\ny", "is no mailbox"),
    ],
)
def test_damaged_and_hostile_documents_are_errors(
    tmp_path: Path, kind: str, data: bytes, message: str
) -> None:
    """What is damaged, encrypted or declares entities is an error that says so."""
    assert message in read_by_child(kind, data, tmp_path / f"x.{kind}")[0]["error"]


def test_a_zip_bomb_is_an_error(tmp_path: Path) -> None:
    """A member that unpacks to far more than its archive has is not read."""
    with zipfile.ZipFile(path := tmp_path / "x.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", bytes(60_000_000))
    described, _ = read_by_child("docx", path.read_bytes(), path)
    assert "unpacks to more than" in described["error"]


def test_mail_has_its_main_headers_and_its_text(tmp_path: Path) -> None:
    """Headers are decoded; the plain form of a text is preferred to HTML; other parts are counted;
    unknown encodings and damaged messages of a mailbox do not matter to the rest.
    """
    message = (
        b"Subject: =?utf-8?q?H=C3=A9llo?=\r\nX-Other: no\r\nContent-Type: multipart/mixed; boundary=a"
        b"\r\n\r\n--a\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: text/plain; charset=unheard-of\r\n\r\nplain\r\n--b\r\n"
        b"Content-Type: text/html\r\n\r\n<p>rich\r\n--b--\r\n--a\r\n"
        b"Content-Type: image/png\r\n\r\nx\r\n--a\r\nContent-Type: application/pdf\r\n"
        b"Content-Disposition: attachment\r\n\r\nx\r\n--a--\r\n"
    )
    described, text = read_by_child("eml", message, tmp_path / "x.eml")
    assert text == "Subject: Héllo\n\nplain"
    assert described["properties"]["not_included"] == {"images": 1, "attachments": 1}
    box = b"From x\nContent-Type: text/html\n\n<b>a</b><br>b\n>From c\n\nFrom y\n\nFrom z\nTo: d\n\ne\n"
    described, text = read_by_child("mbox", box, tmp_path / "x.mbox")
    assert text == "\na\nb From c\n\f\n\n\fTo: d\n\ne"
    assert described["properties"] == {
        "format": "mailbox",
        "messages": 3,
        "unreadable_messages": "2",
    }


def test_a_document_that_takes_too_long_ends_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile document costs its processor time and no more: the reader's process ends, other
    documents are read by a new one, and none is left.
    """
    monkeypatch.setattr(extractor, "_SECONDS", {"html": 0.2})
    (tmp_path / "a.html").write_text("<!--" * 3_000_000)
    (tmp_path / "b.eml").write_bytes(b"Subject: x\n\ny")
    with Corpus.build(tmp_path) as corpus:
        assert corpus.left_out == {"a.html": "takes too long"}
        assert corpus.text("b.eml") == "Subject: x\n\ny"


async def test_a_cancelled_reading_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build whose caller is cancelled ends the process that reads for it."""
    started, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    end = extractor.Extractor._end

    def note_start(self: extractor.Extractor, count: int) -> bytearray:
        loop.call_soon_threadsafe(started.set)
        return receive(self, count)

    def note_end(self: extractor.Extractor) -> int | None:
        code = end(self)
        if code is not None:
            codes.append(code)
            loop.call_soon_threadsafe(ended.set)
        return code

    receive = extractor.Extractor._receive
    codes: list[int] = []
    monkeypatch.setattr(extractor.Extractor, "_receive", note_start)
    monkeypatch.setattr(extractor.Extractor, "_end", note_end)
    (tmp_path / "a.html").write_text("<!--" * 3_000_000)
    building = asyncio.create_task(build_corpus(Corpus.build, tmp_path / "a.html"))
    await started.wait()
    building.cancel()
    await ended.wait()
    assert codes == [-signal.SIGKILL]
    with pytest.raises(asyncio.CancelledError):
        await building


def test_a_page_has_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a page is never longer than what is left of the document's."""
    set_to: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda _, seconds: set_to.append(seconds))
    time_limit.allow_document(1_000_000)
    time_limit.allow_seconds(20)
    time_limit.allow_document(1)
    time_limit.allow_seconds(20)
    time_limit.end_limit()
    assert [set_to[0], set_to[1], set_to[2], set_to[4]] == [1_000_000, 20, 1, 0]
    assert 0 < set_to[3] <= 1


def test_without_pypdf_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing package is an error that names the extra; in a folder, the file is counted."""
    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7")
    monkeypatch.setattr(
        "sys.path", [each for each in __import__("sys").path if "site-packages" not in each]
    )
    with pytest.raises(MissingExtraError, match=r"rlm-integrations\[files\]"):
        Corpus.build(path)
    (tmp_path / "a.txt").write_text("a")
    with Corpus.build(tmp_path) as corpus:
        assert corpus.left_out == {"x.pdf": "needs rlm-integrations[files]"}


class Loaded:
    """A document of a framework."""

    def __init__(self, text: str, **metadata: object) -> None:
        self.page_content = text
        self.metadata = metadata


def test_the_pages_of_loaders_are_cited() -> None:
    """A document whose loader says file and page is cited so; the key `page` alone is not enough:
    some count from 0. The metadata is kept.
    """
    pages = [
        Loaded("a", source="/tmp/x.pdf", page=0, page_label="iv"),
        Loaded("b", source="x.pdf", page=0),
        Loaded("c", file_name="y.pdf", page_number=3, row=7),
    ]
    with Corpus.build(pages) as corpus:
        spans = [SpanRef(each.name, 0, 1) for each in corpus.sources]
        assert [*find_locations(corpus, spans).values()] == ["x.pdf p. iv", "y.pdf p. 3"]
        assert corpus.sources[2].metadata == {"file_name": "y.pdf", "page_number": 3, "row": 7}


@pytest.mark.parametrize(
    ("name", "text", "words", "place"),
    [
        ("x.csv", "a;b\n1;2,5\n", "2,5", " row 2, column b"),
        ("x.csv", 'a,b\n"x ""y""",2\n', "y", " row 2, column a"),
        ("x.csv", "a,b\n\n1,2\n", "1", " row 3, column a"),
        ("x.csv", "a,b\n1,2\n3,4", "2\n3", " row 2"),
        ("x.tsv", "a\tb\n1,0\t2", "1,0", " row 2, column a"),
        ("x.csv", "a,b", "b", " row 1"),
        ("x.csv", "a\r1\r2\r", "2", " row 3, column a"),
        ("x.csv", f"a\n{'x' * 200_000}y", "y", ":2"),
        ("x.json", '[1, {"a b": "c\\"d"}]', "d", ' $[1]["a b"]'),
        ("x.json", '{"a": {"b": 1, "c": 2}}', '1, "c"', " $.a"),
        ("x.json", '"text"', "ext", " $"),
        ("x.json", '[{"a": 1},\n {"b": 2}]', '{"a": 1},\n', " $[0]"),
        ("x.json", '{"a": [\n1', "1", " $.a[0]"),
        ("x.json", "{\n]x", "x", ":2"),
        ("x.json", "1,\n2", "2", ":2"),
        ("x.json", "[" * 2_000 + "7", "7", ":1"),
        ("x.json", "not\njson", "json", " $"),
    ],
)
def test_rows_and_paths(tmp_path: Path, name: str, text: str, words: str, place: str) -> None:
    """A place in CSV is a row, as spreadsheets count, and its column if it is in one cell; a place
    in JSON the path of the smallest value around it; in what is neither, a line.
    """
    (tmp_path / name).write_text(text, newline="")
    with Corpus.build(tmp_path / name) as corpus:
        assert located(corpus, words) == f"{name}{place}"


def test_numbers_are_written_in_short() -> None:
    """Adjacent numbers are a range; of very many, the first are written."""
    assert number_ranges([1, 3, 4, 5, 9]) == "1, 3-5, 9"
    assert number_ranges(range(1, 1_000, 2)).endswith("97, 99, …")
