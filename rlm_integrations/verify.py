"""Checks a certificate of coverage against the documents; `python -m rlm_integrations.verify`.

It is independent of the rest of this library and needs the standard library alone, so that it can
be read in full, copied, and run by anyone who has the documents.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

KIND = "rlm_integrations coverage certificate 1"
_MAX_SHOWN = 20  # problems


def sha256(text: str) -> str:
    """The digest of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seal(certificate: dict[str, Any]) -> str:
    """The digest of all fields except "seal"."""
    rest = {name: value for name, value in certificate.items() if name != "seal"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")))


def joined(spans: Iterable[list[int]]) -> list[list[int]]:
    """The spans in order, without overlaps."""
    found: list[list[int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        elif start < end:
            found.append([start, end])
    return found


def problems(certificate: dict[str, Any], texts: Sequence[str]) -> Iterator[str]:
    """What is wrong with a certificate of these texts."""
    if certificate["kind"] != KIND:
        yield f"its kind is {certificate['kind']!r}, not {KIND!r}"
        return
    if certificate["seal"] != seal(certificate):
        yield "the file was changed: its seal is not that of its content"
    by_hash = {sha256(text): text for text in texts}
    sources = {each["name"]: each for each in certificate["sources"]}
    known = {
        name: by_hash[each["sha256"]] for name, each in sources.items() if each["sha256"] in by_hash
    }
    read: dict[str, list[list[int]]] = {name: [] for name in sources}

    def part(source: str, start: int, end: int) -> str | None:
        """The text of a span, or None if its document is not here or the span is outside of it."""
        return (
            known[source][start:end]
            if source in known and 0 <= start <= end <= len(known[source])
            else None
        )

    for name, each in sources.items():
        if not each["sha256"]:
            continue  # it was not read, which the prompts prove below
        if name not in known:
            yield f"{name}: no document was given whose SHA-256 is {each['sha256']}"
        elif len(known[name]) != each["length"]:
            yield f"{name}: it has {len(known[name]):,} characters, not {each['length']:,}"
    for prompt in certificate["prompts"]:
        pieces = [piece if isinstance(piece, str) else part(*piece) for piece in prompt["pieces"]]
        spans = [piece for piece in prompt["pieces"] if not isinstance(piece, str)]
        if None in pieces:
            yield f"prompt {prompt['path']}: a span is not in the documents"
        elif sha256("".join(filter(None, pieces))) != prompt["sha256"]:
            yield f"prompt {prompt['path']}: its parts do not make the prompt of its SHA-256"
        else:
            for source, start, end in spans:
                read[source].append([start, end])
    for name, each in sources.items():
        if joined(read[name]) != each["read"]:
            yield f"{name}: the parts that its prompts contain are not those that it says were read"
    if len(certificate["prompts"]) + certificate["uncounted"] != certificate["calls"]:
        yield f"it has {len(certificate['prompts']):,} prompts of {certificate['calls']:,} calls"
    for number, each in enumerate(certificate["citations"], 1):
        if part(each["source"], each["start"], each["end"]) != each["quote"]:
            yield f"citation [{number}]: its words are not at its place in {each['source']}"


def read_texts(path: Path, encoding: str) -> list[str]:
    """The text of a file; for JSON with a string or a list of strings, also those."""
    text = path.read_bytes().decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
    try:
        value = json.loads(text) if path.suffix == ".json" else None
    except ValueError:
        value = None
    values = value if isinstance(value, list) else [value]
    return [text, text.removeprefix("\ufeff"), *(each for each in values if isinstance(each, str))]


def print_plain(line: str) -> None:
    """Print a line in ASCII, whatever characters a file brought into it."""
    shown = "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in line)
    sys.stdout.write(f"{shown}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Check a file: 0 if it is right, 1 if it is not, 2 if it cannot be checked."""
    parser = argparse.ArgumentParser("python -m rlm_integrations.verify", description=__doc__)
    parser.add_argument("file", type=Path, help="the certificate")
    parser.add_argument(
        "documents", nargs="*", type=Path, help="text files; .json may hold a string or several"
    )
    parser.add_argument("--encoding", default="utf-8", help="of the text files (%(default)s)")
    options = parser.parse_args(words)
    try:
        texts = [text for path in options.documents for text in read_texts(path, options.encoding)]
        content = options.file.read_bytes()
    except (OSError, ValueError, LookupError) as error:
        print_plain(f"cannot be read: {type(error).__name__}: {error}")
        return 2
    try:
        certificate = json.loads(content)
        found = list(problems(certificate, texts))
    except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
        print_plain(f"{options.file} is not a certificate: {type(error).__name__}: {error}")
        return 2
    for problem in found[:_MAX_SHOWN]:
        print_plain(problem)
    if found:
        print_plain(f"not verified: {len(found):,} problems")
        return 1
    read = sum(end - start for each in certificate["sources"] for start, end in each["read"])
    length = sum(each["length"] for each in certificate["sources"])
    print_plain(
        f"verified: {read:,} of {length:,} characters were read, in {len(certificate['prompts']):,} "
        f"prompts; {len(certificate['citations']):,} citations"
    )
    if certificate["uncounted"]:
        print_plain(f"{certificate['uncounted']:,} further calls are not in the record in full")
    return 0


if __name__ == "__main__":
    sys.exit(main())
