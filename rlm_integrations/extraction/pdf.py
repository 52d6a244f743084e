"""The text of PDF files, by pypdf."""

import logging
from typing import IO, TYPE_CHECKING, Any, Final

from rlm_integrations.extraction.builder import TextBuilder, UnreadableError, number_ranges
from rlm_integrations.extraction.time_limit import allow_seconds

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

MAX_PAGES: Final = 20_000
PAGE_SECONDS: Final = 20  # of processor time
_FORM_FEED: Final = "\n\f"  # between pages


def extract_pdf(file: IO[bytes], builder: TextBuilder) -> None:
    """Add the text of each page.

    Raises:
        ImportError: pypdf is not installed.
        UnreadableError: It is encrypted, damaged, a scan, or too long.
    """
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    logging.getLogger("pypdf").disabled = True
    try:
        reader = PdfReader(file)
        is_open = not reader.is_encrypted or bool(reader.decrypt(""))
        count = len(reader.pages) if is_open else 0
    except MemoryError:
        raise
    except DependencyError as error:
        raise UnreadableError(
            "is encrypted, which needs the package cryptography: pip install"
            " 'rlm-integrations[files]'",
            "encrypted",
        ) from error
    except Exception as error:  # pypdf raises errors of every kind for damaged files
        raise UnreadableError(
            f"is not a readable PDF: it is damaged ({error})", "damaged"
        ) from error
    if not is_open:
        raise UnreadableError(
            "has a password: remove it first, for example with qpdf --decrypt", "encrypted"
        )
    if not count:
        raise UnreadableError("is not a readable PDF: it has no pages", "damaged")
    if count > MAX_PAGES:
        raise UnreadableError(
            f"has {count:,} pages, more than {MAX_PAGES:,}: split it", "too many pages"
        )
    _add_pages(reader, count, builder)


def _add_pages(reader: "PdfReader", count: int, builder: TextBuilder) -> None:
    builder.properties |= {"format": "PDF", "pages": count}
    empty: list[int] = []
    unreadable: list[int] = []
    seen: set[object] = set()
    for number in range(1, count + 1):
        allow_seconds(PAGE_SECONDS)
        if number > 1:
            builder.add(_FORM_FEED)
        builder.begin(f" p. {number}")
        try:
            page = reader.pages[number - 1]
            text = page.extract_text().replace("\f", "\n")
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - pypdf raises errors of every kind for damaged files
            unreadable.append(number)
            continue
        if not text or text.isspace():
            empty.append(number)
        builder.add(text)
        builder.omit("images", _count_images(page, seen))
    images = builder.properties.get("not_included", {}).get("images", 0)
    if len(unreadable) == count:
        raise UnreadableError("is damaged: none of its pages can be read", "damaged")
    if len(empty) + len(unreadable) == count:
        raise UnreadableError(
            f"has no text: it is a scan ({count:,} pages, {images:,} images); recognise its text"
            " first, for example with ocrmypdf",
            "a scan, without text",
        )
    builder.properties |= {
        key: number_ranges(pages)
        for key, pages in (("pages_without_text", empty), ("unreadable_pages", unreadable))
        if pages
    }
    builder.omit("attachments", _count(lambda: len(reader.attachments)))
    builder.omit("form fields", _count(lambda: len(reader.get_fields() or ())))


def _count_images(page: "PageObject", seen: set[object]) -> int:
    """The images of a page that no page before it has."""

    def count() -> int:
        images: Any = page.get("/Resources", {}).get_object().get("/XObject")
        images = {} if images is None else images.get_object()
        found = 0
        for name in images:
            reference = images.raw_get(name)
            key = getattr(reference, "idnum", None) or id(reference)
            if key not in seen:
                seen.add(key)
                found += reference.get_object().get("/Subtype") == "/Image"
        return found

    return _count(count)


def _count(count: Any) -> int:
    try:
        return int(count())
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - what is damaged cannot be counted
        return 0
