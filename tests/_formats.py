"""Documents for tests, made by hand."""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
RELATIONSHIPS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
    'relationships/officeDocument" Target="word/document.xml"/></Relationships>'
)
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
)


def pdf_of(contents: Sequence[bytes], *, images: int = 0, trailer: bytes = b"") -> bytes:
    """A PDF file with a page for each content stream, all with the same images."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]

    def add(item: bytes) -> bytes:
        objects.append(item)
        return b"%d 0 R" % len(objects)

    font = add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    image = (
        b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /Length 1 >>\nstream\n0\nendstream"
    )
    pictures = b" ".join(b"/I%d %s" % (number, add(image)) for number in range(images))
    resources = b"<< /Font << /F %s >> /XObject << %s >> >>" % (font, pictures)
    pages = []
    for content in contents:
        packed = zlib.compress(content)
        stream = add(
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
        )
        pages.append(
            add(
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources %s"
                b" /Contents %s >>" % (resources, stream)
            )
        )
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), b" ".join(pages))
    file = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, item in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    file += b"trailer << /Size %d /Root 1 0 R %s >>" % (len(objects) + 1, trailer)
    return bytes(file + b"\nstartxref\n%d\n%%%%EOF" % start)


def page_of(*lines: str) -> bytes:
    """The content stream of a page with these lines."""
    shown = b" ".join(b"(%s) Tj T*" % line.encode() for line in lines)
    return b"BT /F 12 Tf 14 TL 72 720 Td %s ET" % shown


def zip_of(members: Mapping[str, str | bytes]) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def docx_of(body: str, **others: str) -> bytes:
    """A DOCX file with this body, and other parts by their names without `.xml`."""
    return zip_of(
        {
            "_rels/.rels": RELATIONSHIPS,
            "word/document.xml": f"<w:document {WORD}><w:body>{body}</w:body></w:document>",
            **{f"word/{name}.xml": content for name, content in others.items()},
        }
    )


def epub_of(sections: Sequence[str], **others: str) -> bytes:
    """An EPUB file with these sections, which its archive has in the opposite order."""
    names = [f"s {number}.xhtml" for number in range(len(sections))]
    items = "".join(
        f'<item id="i{number}" href="{name.replace(" ", "%20")}"/>'
        for number, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="i{number}"/>' for number in range(len(sections)))
    package = f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>"
    return zip_of(
        {
            "META-INF/container.xml": CONTAINER,
            **{
                f"OPS/{name}": f"<html><body>{section}</body></html>"
                for name, section in reversed([*zip(names, sections, strict=True)])
            },
            "OPS/book.opf": package,
            **{f"META-INF/{name}.xml": content for name, content in others.items()},
        }
    )
