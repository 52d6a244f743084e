"""The process that reads documents: it gets their files, one after the other, and answers with
their text. It ends with its host, or when it takes too long for one of them.
"""

import json
import os
import resource
import socket
import struct
import sys
from typing import IO, Any, Final

from rlm_integrations.extraction.builder import TextBuilder, UnreadableError
from rlm_integrations.extraction.time_limit import allow_document, end_limit

REQUEST_BYTES: Final = 1 << 16
LENGTHS: Final = struct.Struct(">QQ")  # of the description in JSON, and of the text in UTF-8
MAX_TEXT_BYTES: Final = 500_000_000
_MEMORY_BYTES: Final = 4 << 30


def main(descriptor: int) -> None:
    """Answer the requests on this socket until the host closes it."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # pypdf imports it if it is there, for images, which are not extracted
    sys.modules["PIL"] = None  # type: ignore[assignment]
    with socket.socket(fileno=descriptor) as connection:
        while True:
            request, files, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 1)
            if not request:
                return
            description, text = answer(json.loads(request), files[0])
            head = json.dumps(description).encode()
            connection.sendall(LENGTHS.pack(len(head), len(text)) + head)
            connection.sendall(text)


def answer(asked: dict[str, Any], descriptor: int) -> tuple[dict[str, Any], bytes]:
    """The description and the text of a document, or the error that it raises."""
    builder = TextBuilder()
    allow_document(asked["seconds"])
    try:
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            _extract(asked, file, builder)
        text = builder.text.encode("utf-8", "surrogatepass")
    except UnreadableError as error:
        return {"error": error.message, "reason": error.reason}, b""
    except (MemoryError, RecursionError):
        return {"error": "needs too much memory to be read", "reason": "too complex"}, b""
    except UnicodeError as error:
        return {
            "error": f"is not valid text: {error}; pass its encoding, or errors='replace'",
            "reason": "not in its encoding",
        }, b""
    except ImportError as error:
        return {"missing": str(error)}, b""
    finally:
        end_limit()
    if len(text) > MAX_TEXT_BYTES:
        megabytes = MAX_TEXT_BYTES // 1_000_000
        return {
            "error": f"has more than {megabytes} MB of text: split it",
            "reason": "too large",
        }, b""
    return {
        "starts": builder.starts,
        "labels": builder.labels,
        "properties": builder.properties,
    }, text


def _extract(asked: dict[str, Any], file: IO[bytes], builder: TextBuilder) -> None:
    """Add the text of a document; the module of its format is loaded at its first document."""
    kind = asked["format"]
    if kind == "pdf":
        from rlm_integrations.extraction.pdf import extract_pdf

        extract_pdf(file, builder)
    elif kind == "html":
        from rlm_integrations.extraction.html import extract_html

        extract_html(file.read(), builder, asked["encoding"], asked["errors"])
    elif kind == "docx":
        from rlm_integrations.extraction.docx import extract_docx

        extract_docx(file, builder)
    elif kind == "epub":
        from rlm_integrations.extraction.epub import extract_epub

        extract_epub(file, builder)
    elif kind == "eml":
        from rlm_integrations.extraction.mail import extract_eml

        extract_eml(file, builder)
    else:
        from rlm_integrations.extraction.mail import extract_mbox

        extract_mbox(file, builder)
