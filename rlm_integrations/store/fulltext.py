"""Full-text search over a view: words ranked by BM25, and substrings found through their trigrams.

The indexes are FTS5 tables of SQLite in memory; each is created at its first use, and indexes new
objects before each search. If FTS5 is missing, `scan.Scan` reads every object. Statements insert
and return many rows at once: FTS5 flushes after each statement that inserts several, and Python
releases its global lock at every step of a statement, and waits up to 5 ms to get it back if
another thread is busy.
"""

import itertools
import json
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from rlm_integrations.store.log import Created
from rlm_integrations.store.text import Skip, folded, searchable_text, words

Fetch = Callable[[str, tuple[object, ...]], Sequence[Any]]

SCORED: Final = 3_000  # objects that one search scores, at a microsecond each
# A word in so many objects says little about each, and scoring it takes milliseconds
COMMON_WORD_OBJECTS: Final = 30_000
MAX_COMMON_WORDS: Final = 4  # common words that count in a score in addition to the rare ones
TRIGRAMS: Final = 6  # of a needle that are looked up; rows found are checked anyway
# Up to so many objects, reading them is faster than an index
READ_BELOW_OBJECTS: Final = {"desc": 5_000, "text": 500}
PORTION: Final = 2_000_000  # characters after which a statement inserts no further text
COUNTS: Final = 10_000  # words whose count is cached

_TABLES: Final = {
    "words": "content='', tokenize='unicode61 remove_diacritics 2'",
    "desc": "content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'",
    "text": "content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'",
}
# Rows are flushed rarely and merged late, little by little: a third less time for thousands of
# rows, and the worst time is near the median.
_TUNING: Final = {"hashsize": 16 << 20, "automerge": 16, "crisismerge": 64}


class WordSearch:
    """Ranks the rows of an FTS5 table of `create_table` by BM25.

    Args:
        fetch: Runs a query with its values, and returns all rows.
        table: The name of the table.
        counts: By word, the rows that have it, of how many rows: a cache.
    """

    def __init__(self, fetch: Fetch, table: str, counts: dict[str, tuple[int, int]]) -> None:
        self._fetch = fetch
        self._table = table
        self._counts = counts

    def rank(self, size: int, text: str, limit: int, skip: Skip) -> list[tuple[int, float]]:
        """As `TextIndex` says, for a table of `size` rows.

        Up to `SCORED` objects this is exact BM25. Beyond, rare words decide which objects are
        scored, and of objects without a rare word only the newest are.
        """
        counted = sorted(
            (count, word)
            for word in map(_quoted, words(storable(text)))
            if (count := self._count(word, size))
        )
        telling = [word for count, word in counted if count < COMMON_WORD_OBJECTS]
        if not telling:
            found = self._newest(_all(word for _, word in counted), limit, skip) if counted else {}
            return list(found.items())
        below = [
            total <= SCORED or size <= SCORED
            for total in itertools.accumulate(count for count, _ in counted)
        ]
        rare = list(itertools.compress(telling, below))
        further = telling[len(rare) :][:MAX_COMMON_WORDS]
        scores: dict[int, float] = {}
        if rare:
            scores = self._scored(_any(rare), limit, skip)
        if rare and further:
            scores |= self._scored(f"({_any(rare)}) AND ({_any(further)})", limit, skip)
        elif len(further) > 1:
            scores = self._scored(_all(further), limit, skip)
        if further and len(scores) < limit:
            scores = self._scored(_any(rare + further), limit, skip) | scores
        return sorted(scores.items(), key=lambda item: (-item[1], -item[0]))[:limit]

    def _count(self, word: str, size: int) -> int:
        """The number of rows with a word, up to `COMMON_WORD_OBJECTS`; cached until there are a
        tenth more rows.
        """
        count, then = self._counts.get(word, (0, 0))
        if count < COMMON_WORD_OBJECTS and size > then * 1.1:
            table = self._table
            ((count,),) = self._fetch(
                # Constant names
                f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH ? LIMIT ?)",  # noqa: S608
                (word, COMMON_WORD_OBJECTS),
            )
            if len(self._counts) >= COUNTS:
                self._counts.clear()
            self._counts[word] = (count, size)
        return count

    def _scored(self, expression: str, limit: int, skip: Skip) -> dict[int, float]:
        """The best rows with their scores, of the newest `SCORED` that match, or of more if too
        many of those are skipped.
        """
        table = self._table
        # Constant names
        matches = f"FROM {table} WHERE {table} MATCH ?"
        last = f"SELECT rowid {matches} ORDER BY rowid DESC LIMIT 1 OFFSET ?"
        query = (
            f"SELECT rowid, -bm25({table}) AS score {matches} AND rowid > ? "
            "ORDER BY score DESC, rowid DESC LIMIT ?"
        )
        looked_at = max(SCORED, limit)
        while True:
            floor = self._fetch(last, (expression, looked_at))
            found = self._first_rows(query, (expression, floor[0][0] if floor else -1), limit, skip)
            if not floor or len(found) == limit:
                return found
            looked_at *= 4

    def _newest(self, expression: str, limit: int, skip: Skip) -> dict[int, float]:
        """The newest rows that match, each with the lowest score."""
        table = self._table
        # Constant names
        query = f"SELECT rowid, 1e-6 FROM {table} WHERE {table} MATCH ? ORDER BY rowid DESC LIMIT ?"  # noqa: S608
        return self._first_rows(query, (expression,), limit, skip)

    def _first_rows(
        self, query: str, values: tuple[object, ...], limit: int, skip: Skip
    ) -> dict[int, float]:
        """The first rows of a query without those to skip."""
        asked = limit
        while True:
            found = self._fetch(query, (*values, asked))
            kept = {row: score for row, score in found if not skip(row)}
            if len(kept) >= limit or len(found) < asked:
                return dict(itertools.islice(kept.items(), limit))
            asked *= 4


class FullText:
    """The index in SQLite.

    Raises:
        sqlite3.OperationalError: This SQLite lacks FTS5, its trigrams (before 3.34), or JSON.
    """

    def __init__(self) -> None:
        import sqlite3

        self._lock = threading.Lock()
        database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db = database
        weakref.finalize(self, database.close)
        self._indexed = dict.fromkeys(_TABLES, 0)  # rows that each table has indexed
        self._search = WordSearch(
            lambda query, values: database.execute(query, values).fetchall(), "words", {}
        )
        self._db.execute("SELECT 1 FROM json_each('[]')")
        for kind in _TABLES:
            create_table(self._db.execute, kind, kind)

    def rank(
        self, rows: Sequence[Created], text: str, limit: int, skip: Skip
    ) -> list[tuple[int, float]]:
        """As `TextIndex` says."""
        with self._lock:
            self._take_in("words", rows)
            return self._search.rank(len(rows), text, limit, skip)

    def holding(
        self, rows: Sequence[Created], field: str, needles: Sequence[str], *, newest_first: bool
    ) -> Iterator[list[int]] | None:
        """As `TextIndex` says: with trigrams, so None for a needle of one or two characters."""
        if len(rows) <= READ_BELOW_OBJECTS[field] or min(map(len, needles)) < 3:
            return None
        with self._lock:
            self._take_in(field, rows)
        expression = trigrams_of(needles)
        return self._portions(field, expression, len(rows), newest_first=newest_first)

    def _portions(
        self, table: str, expression: str, end: int, *, newest_first: bool
    ) -> Iterator[list[int]]:
        order, beyond, last = ("DESC", "<", end) if newest_first else ("ASC", ">", -1)
        # Constant names
        rows = (
            f"SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid {beyond} ? "  # noqa: S608
            f"ORDER BY rowid {order} LIMIT ?"
        )
        limit = 64
        while True:
            with self._lock:
                (joined,) = self._db.execute(
                    f"SELECT group_concat(rowid) FROM ({rows})",  # noqa: S608 - constant names
                    (expression, last, limit),
                ).fetchone()
            found = sorted(map(int, joined.split(",")), reverse=newest_first) if joined else []
            yield [row for row in found if row < end]
            if len(found) < limit:
                return
            last = found[-1]
            limit = min(limit * 4, 4096)

    def _take_in(self, table: str, rows: Sequence[Created]) -> None:
        """Index the rows that a table does not have yet; if this is interrupted, the next call
        continues from there.
        """
        make = searchable_text if table == "words" else lambda event: folded(event, table)
        # Constant names
        insert = f"INSERT INTO {table}(rowid, t) SELECT key + ?, value FROM json_each(?)"  # noqa: S608
        end = len(rows)
        while self._indexed[table] < end:
            at = self._indexed[table]
            texts: list[str] = []
            size = 0
            while at + len(texts) < end and size < PORTION:
                texts.append(storable(make(rows[at + len(texts)])))
                size += len(texts[-1])
            self._db.execute("BEGIN")
            try:
                self._db.execute(insert, (at, json.dumps(texts, ensure_ascii=False)))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._indexed[table] = at + len(texts)


def storable(text: str) -> str:
    """The text without lone surrogates and NUL characters, which SQLite cannot store."""
    text = text.replace("\0", " ")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def create_table(execute: Callable[..., object], table: str, kind: str) -> None:
    """Create an FTS5 table of "words", or of the trigrams of "desc" or "text"."""
    execute(f"CREATE VIRTUAL TABLE {table} USING fts5(t, {_TABLES[kind]})")
    for option, value in _TUNING.items():
        # Constant names
        execute(f"INSERT INTO {table}({table}, rank) VALUES (?, ?)", (option, value))  # noqa: S608


def trigrams_of(needles: Iterable[str]) -> str:
    """The expression that finds the rows that may contain one of some folded needles, each of at
    least three characters.
    """
    return _any(f"({_all(map(_quoted, _trigrams(storable(needle))))})" for needle in needles)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _any(expressions: Iterable[str]) -> str:
    return " OR ".join(expressions)


def _all(expressions: Iterable[str]) -> str:
    return " AND ".join(expressions)


def _trigrams(needle: str) -> list[str]:
    """Some trigrams of a needle, spread over its whole length."""
    last = len(needle) - 3
    step = max(3, -(-last // (TRIGRAMS - 1))) if last else 1
    return [needle[at : at + 3] for at in dict.fromkeys([*range(0, last, step), last])]
