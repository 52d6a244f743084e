"""The command `rlm-integrations store`, which reads the findings of a run, or of runs that share a
store.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import (
    DEFAULT_STORAGE,
    add_document,
    add_files,
    add_json,
    add_storage,
    count,
)
from rlm_integrations.cli.files import open_corpus
from rlm_integrations.cli.output import (
    check_writable,
    one_line,
    print_json,
    print_lines,
    print_text,
    quote_file,
    say,
)
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import existing_storage, is_file
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.records import StoreObject
    from rlm_integrations.storage import Storage
    from rlm_integrations.store import SharedStore
    from rlm_integrations.store.view import Card

_QUERY_HELP: Final = (
    'terms that a finding must meet, such as: type=claim tag=dam worker=w desc~"words" text~"words"'
    " -type=draft sort=oldest"
)
_TEXT_CHARS: Final = 200  # of a content, and of a quote, that are shown
_SEARCHED_RUNS: Final = 1_000  # for the document of a shared store


def add_store(commands: Any) -> None:
    """Add the command with its own commands."""
    store: Parser = commands.add_parser(
        "store",
        help="search, count and export the findings of a run",
        description=(
            "Search, count and export the findings of a run, or of runs that share a store."
        ),
    )
    actions = store.add_commands("action")

    def action(name: str, words: str, run: Callable[[argparse.Namespace], int]) -> Parser:
        parser: Parser = actions.add_parser(
            name, help=words, description=f"{words[0].upper()}{words[1:]}."
        )
        parser.add_argument(
            "name",
            metavar="STORE",
            help="the id of a run, a file that --save wrote, or with --shared the name of a store",
        )
        if name != "export":
            parser.add_argument("query", nargs="?", default="", metavar="QUERY", help=_QUERY_HELP)
        parser.add_argument(
            "--shared", action="store_true", help="STORE is the name of a store that runs share"
        )
        add_storage(parser, DEFAULT_STORAGE)
        parser.set_defaults(run=run)
        return parser

    search = action("search", "print findings, with the places that support them", _search)
    search.add_argument("--text", metavar="WORDS", help="rank by these words, the best match first")
    _add_limit(search, 50)
    add_json(search, "print a JSON list")
    search.examples = (
        "store search 1f0c9a3e57d24b1c 'type=claim desc~dam'",
        'store search 1f0c9a3e57d24b1c --text "who approved the dam" --limit 5',
    )
    summary = action("summary", "count findings by type and tag", _summary)
    _add_limit(summary, 10)
    add_json(summary)
    summary.examples = (
        "store summary 1f0c9a3e57d24b1c",
        "store summary letters 'tag=dam' --shared",
    )
    export = action("export", "write all findings, with the places that support them", _export)
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file to write; by default stdout"
    )
    export.add_argument(
        "--format",
        choices=["jsonl", "json", "events"],
        default="jsonl",
        help=(
            "findings, one a line (%(default)s) or as one list; or the store's history, which"
            " SharedStore.import_ reads"
        ),
    )
    add_json(export, "with -o: print how many findings the file has as JSON")
    export.examples = (
        "store export 1f0c9a3e57d24b1c -o findings.jsonl",
        "store export letters --shared --format events -o letters.jsonl",
    )
    for each in (search, export):
        add_document(each, "the files of the run, for quotes, if the storage does not have them")
        add_files(each)


def _add_limit(parser: Parser, default: int) -> None:
    parser.add_argument(
        "--limit", type=count, default=default, metavar="N", help="how many at most (%(default)s)"
    )


class _Findings:
    """A store, and its document if there is one."""

    def __init__(self, store: "SharedStore", corpus: "Corpus | None" = None) -> None:
        self.store = store if corpus is None else store.with_document(corpus)
        self._corpus = corpus
        sources = () if corpus is None else corpus.sources
        self._files = {each.name: each.metadata.get("file") for each in sources}

    def plain(self, found: "StoreObject") -> dict[str, Any]:
        """A finding as plain JSON, with the words of its places, or null."""
        corpus = self._corpus
        places = [
            {
                "source": span.source,
                "file": self._files.get(span.source),
                "start": span.start,
                "end": span.end,
                "quote": None if corpus is None else corpus.text(span.source, span.start, span.end),
            }
            for span in found.backrefs
        ]
        return {**found.to_dict(), "backrefs": places}


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[_Findings]:
    """The store that the options name, with its document if there is one.

    Raises:
        InputError: There is no such run, file or store, or the document is another one.
    """
    with ExitStack() as stack:
        store, find_document = _named_store(options, stack)
        if "files" not in options:  # counts need no words
            yield _Findings(store)
            return
        corpus = open_corpus(options) if options.files else find_document()
        if corpus is None:
            say("the document is not stored, so there are no quotes: name it with --document")
        else:
            stack.enter_context(corpus)
        yield _Findings(store, corpus)


def _named_store(
    options: argparse.Namespace, stack: ExitStack
) -> "tuple[SharedStore, Callable[[], Corpus | None]]":
    """A store, and what finds its document."""
    from rlm_integrations.result import RLMResult

    name = options.name
    if not options.shared and is_file(name):
        return _store_of(RLMResult.load(name), name), lambda: None
    storage = stack.enter_context(existing_storage(options.storage))
    if not options.shared:
        return _store_of(storage.run(name), name), lambda: storage.document(name)
    shared = storage.store(name)
    if not shared.seq:
        raise InputError(
            f"there is no shared store {name!r} in this storage, or it is empty; without --shared"
            " STORE is a run"
        )
    return shared, lambda: _document_of(storage, name)


def _store_of(result: Any, name: str) -> "SharedStore":
    if result.store is None:
        shared = result.options.get("store")
        raise InputError(
            f"run {name!r} has no store"
            if shared is None
            else f"the findings of {name!r} are in the shared store {shared!r}: name it with"
            " --shared"
        )
    store: SharedStore = result.store
    return store


def _document_of(storage: "Storage", name: str) -> "Corpus | None":
    """The document of a shared store: that of any of its runs."""
    for run in storage.runs(limit=_SEARCHED_RUNS):
        if storage.setup(run.run_id).options.get("store") == name:
            return storage.document(run.run_id)
    return None


def _search(options: argparse.Namespace) -> int:
    if options.text is not None and options.query:
        raise InputError("a QUERY and --text exclude each other: choose one")
    with _opened(options) as found:
        store = found.store
        cards = (
            store.search(options.query, options.limit)
            if options.text is None
            else store.search_text(options.text, options.limit)
        )
        hits = [
            {**found.plain(store.get(card["id"])), "score": card.get("score")} for card in cards
        ]
    if options.json:
        print_json(hits)
        return exit_codes.ANSWERED
    for hit in hits:
        print_text("\n".join(_lines(hit)))
    if not hits:
        say("no finding")
    return exit_codes.ANSWERED


def _lines(hit: dict[str, Any]) -> Iterator[str]:
    """A finding for people: what it is, its content, and its places."""
    yield _head(hit)
    content = hit["content"]
    if content is not None and content != hit["description"]:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        yield f"    {one_line(text, _TEXT_CHARS)}"
    for place in hit["backrefs"]:
        file = "" if place["file"] is None else f" ({quote_file(place['file'])})"
        quote = "" if place["quote"] is None else f": {_quoted(place['quote'])}"
        yield f"    {place['source']}{file} {place['start']}-{place['end']}{quote}"


def _head(card: "dict[str, Any] | Card") -> str:
    tags = f"  [{', '.join(card['tags'])}]" if card["tags"] else ""
    invalid = f"  (invalid: {one_line(card['invalid'])})" if card.get("invalid") else ""
    return f"{card['id']}  {card['type']}  {one_line(card['description'])}{tags}{invalid}"


def _quoted(quote: str) -> str:
    cut = quote if len(quote) <= _TEXT_CHARS else f"{quote[:_TEXT_CHARS]}…"
    return json.dumps(cut, ensure_ascii=False)


def _summary(options: argparse.Namespace) -> int:
    from rlm_integrations.engine.show import counted

    with _opened(options) as found:
        summary = found.store.summary(options.query, options.limit)
    if options.json:
        print_json(summary)
        return exit_codes.ANSWERED
    print_text(counted(summary["total"], "finding"))
    for name, counts in (("types", summary["types"]), ("tags", summary["tags"])):
        shown = ", ".join(f"{number:,} {each}" for each, number in counts.items())
        print_text(f"{name}: {shown or 'none'}")
    for card in summary["matches"]:
        print_text(_head(card))
    return exit_codes.ANSWERED


def _export(options: argparse.Namespace) -> int:
    from rlm_integrations._files import write_whole

    if options.json and options.output is None:
        raise InputError("--json needs -o: without it the findings are printed, which are JSON")
    if options.output is not None:
        check_writable(options.output, "--output")
    with _opened(options) as found:
        if options.output is None:
            print_lines(_exported(found, options.format))
        else:
            lines = _exported(found, options.format)
            write_whole(options.output, (f"{line}\n" for line in lines))
        number = found.store.summary("invalid=any")["total"]
    if options.json:
        print_json({"file": str(options.output), "findings": number})
    elif options.output is not None:
        print_text(str(options.output))
    return exit_codes.ANSWERED


def _exported(found: _Findings, form: str) -> Iterator[str]:
    """The lines of an export, made as they are written: a store may be large."""
    from rlm_integrations.store.export import export_lines
    from rlm_integrations.store.objects import all_objects

    backend = found.store.backend
    if form == "events":
        return export_lines(backend.events(0))
    lines = (json.dumps(found.plain(each)) for each in all_objects(backend))
    return _as_list(lines) if form == "json" else lines


def _as_list(lines: Iterable[str]) -> Iterator[str]:
    before = "["
    for line in lines:
        yield f"{before}{line}"
        before = ","
    yield "]" if before == "," else "[]"
