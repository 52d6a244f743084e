"""The text of mail: single messages (eml) and mailboxes (mbox)."""

import re
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import IO, Final, cast

from rlm_integrations.extraction.builder import TextBuilder, UnreadableError, number_ranges
from rlm_integrations.extraction.html import add_html

_HEADERS: Final = ("From", "To", "Cc", "Date", "Subject")
_QUOTED: Final = re.compile(rb"^>(>*From )", re.MULTILINE)
_MAX_HEADER_CHARS: Final = 10_000


def extract_eml(file: IO[bytes], builder: TextBuilder) -> None:
    """Add the main headers and the text of a message.

    Raises:
        UnreadableError: It is no message.
    """
    builder.properties["format"] = "mail"
    builder.begin("")
    _add_message(file.read(), builder)


def extract_mbox(file: IO[bytes], builder: TextBuilder) -> None:
    """Add all messages of a mailbox.

    Raises:
        UnreadableError: It is no mailbox.
    """
    builder.properties |= {"format": "mailbox", "messages": 0}
    damaged = []
    number = 0
    for number, data in enumerate(_messages(file), 1):
        if number > 1:
            builder.add("\n\f")
        builder.begin(f" message {number}")
        try:
            _add_message(data, builder)
        except UnreadableError:
            damaged.append(number)
    builder.properties["messages"] = number
    if damaged:
        builder.properties["unreadable_messages"] = number_ranges(damaged)


def _messages(file: IO[bytes]) -> Iterator[bytes]:
    """The messages of a mailbox: each begins after a line with `From `, at its start or after an
    empty line.
    """
    lines: list[bytes] = []
    is_after_blank, has_begun = True, False
    for line in file:
        if is_after_blank and line.startswith(b"From "):
            if has_begun:
                yield b"".join(lines)
            lines, has_begun = [], True
        elif has_begun:
            lines.append(line)
        elif line.strip():
            raise UnreadableError("is no mailbox: it does not begin with 'From '", "no mailbox")
        is_after_blank = not line.strip()
    if has_begun:
        yield b"".join(lines)


def _add_message(data: bytes, builder: TextBuilder) -> None:
    try:
        message = BytesParser(policy=default).parsebytes(_QUOTED.sub(rb"\1", data))
        is_message = bool(message.keys())
        for name in _HEADERS:
            if value := _header(message, name):
                builder.add(f"{name}: {value}\n")
        builder.add("\n")
        body = cast("EmailMessage | None", message.get_body(("plain", "html")))
        if body is not None:
            _add_body(body, builder)
        _count_others(message, body, builder)
    except MemoryError:
        raise
    except Exception as error:  # the standard library raises errors of every kind
        raise UnreadableError(f"is damaged ({error})", "damaged") from error
    if not is_message:
        raise UnreadableError("is no message: it has no headers", "no message")


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message.get(name, ""))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a header of which it cannot make sense
        value = next(
            (str(raw) for key, raw in message.raw_items() if key.lower() == name.lower()), ""
        )
    return " ".join(value.split())[:_MAX_HEADER_CHARS]


def _add_body(body: EmailMessage, builder: TextBuilder) -> None:
    data = cast("bytes", body.get_payload(decode=True) or b"")
    try:
        text = data.decode(str(body.get_content_charset("utf-8")), "replace")
    except (LookupError, UnicodeError):
        text = data.decode("utf-8", "replace")
    text = text.replace("\r\n", "\n").replace("\f", "\n").rstrip()
    if body.get_content_type() == "text/html":
        add_html(text, builder)
    else:
        builder.add(text)


def _count_others(message: EmailMessage, body: EmailMessage | None, builder: TextBuilder) -> None:
    """Count the parts that are not in the text; another form of the same text is none."""
    alternatives: set[int] = set()
    for part in message.walk():
        if part.get_content_type() == "multipart/alternative":
            alternatives.update(map(id, part.iter_parts()))
        if part.is_multipart() or part is body or id(part) in alternatives:
            continue
        is_image = part.get_content_maintype() == "image" and not part.is_attachment()
        builder.omit("images" if is_image else "attachments")
