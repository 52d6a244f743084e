"""From a query and a view to the rows that match: the rows come from the smallest index of a term,
and the other terms are checked on each.
"""

import heapq
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rlm_integrations._concurrency.work import spend
from rlm_integrations.store.query import CONTAINS, Query, Term
from rlm_integrations.store.text import TextIndex, folded
from rlm_integrations.store.view import View

# Up to so many rows of an exact term, reading them is faster than a text index
MAX_ROWS_READ: Final = 20_000
FIRST, LARGEST = 64, 4096  # portions grow: most queries need few rows
LOOKED_AT: Final = 10  # characters that it counts as to compare a row's exact term
UNITED: Final = 1 << 16  # rows of a term that are united with others in one step

RowFilter = Callable[[list[int]], list[int]]


def find_rows(view: View, index: Callable[[], TextIndex], query: Query, limit: int) -> list[int]:
    """The matching rows in the number and order that the query asks for; `limit` applies if the
    query has none.
    """
    limit = query.limit or limit
    rows = matching(view, index, query)
    key = query.sort
    if key is None or key in {"newest", "oldest"}:
        return list(itertools.islice(rows, limit))
    return heapq.nsmallest(limit, rows, key=lambda row: (getattr(view.rows[row], key), -row))


def matching(view: View, index: Callable[[], TextIndex], query: Query) -> Iterator[int]:
    """All rows that match, the newest first, or the oldest if the query is sorted so."""
    newest_first = query.sort != "oldest"
    checks = [_exact_filter(view, term) for term in query.terms if term.key not in CONTAINS]
    checks += [
        _contains_filter(view, field, terms)
        for field in CONTAINS
        if (terms := [term for term in query.terms if term.key == field])
    ]
    if query.invalid == "yes":
        checks.insert(0, lambda rows: [row for row in rows if row in view.invalid])
    elif query.invalid == "no" and view.invalid:
        checks.insert(0, lambda rows: [row for row in rows if row not in view.invalid])
    for portion in _portions(view, index, query, newest_first=newest_first):
        rows = portion
        for check in checks:
            spend(LOOKED_AT * len(rows))
            rows = check(rows)
        yield from rows


def _portions(
    view: View, index: Callable[[], TextIndex], query: Query, *, newest_first: bool
) -> Iterator[list[int]]:
    """Rows in order that include all matches: those of the term with the fewest, or all."""
    end = len(view.rows)
    candidates = [
        rows
        for term in query.terms
        if not term.negated and (rows := _indexed_rows(view, term)) is not None
    ]
    best = min(candidates, key=len, default=range(end))
    if len(best) > MAX_ROWS_READ or not candidates:
        for term in query.terms:
            if term.key in CONTAINS and not term.negated:
                needles = [value.casefold() for value in term.values]
                found = index().holding(view.rows, term.key, needles, newest_first=newest_first)
                if found is not None:
                    return found
    return _in_portions(best, end, newest_first=newest_first)


def _indexed_rows(view: View, term: Term) -> "array[int] | list[int] | None":
    """The rows that have an exact term, in order; None for terms without an index."""
    if term.key == "id":
        return sorted(
            row for value in set(term.values) if (row := view.row_of.get(value)) is not None
        )
    postings = view.postings.get(term.key)
    if postings is not None:
        found = [postings[value] for value in dict.fromkeys(term.values) if value in postings]
        if len(found) == 1:
            return found[0]
        union: set[int] = set()
        for rows in found:
            for at in range(0, len(rows), UNITED):
                spend(UNITED)
                union.update(rows[at : at + UNITED])
        return sorted(union)
    linking = view.linking.get(term.key)
    if linking is not None or term.key not in CONTAINS:
        return sorted({row for value in term.values for row in (linking or {}).get(value, ())})
    return None


def _in_portions(
    rows: "array[int] | list[int] | range", end: int, *, newest_first: bool
) -> Iterator[list[int]]:
    """Rows in portions, without those added after `end`."""
    size = FIRST
    length = len(rows)
    done = 0
    while done < length:
        portion = (
            rows[max(length - done - size, 0) : length - done][::-1]
            if newest_first
            else rows[done : done + size]
        )
        yield [row for row in portion if row < end]
        done += size
        size = min(size * 4, LARGEST)


def _exact_filter(view: View, term: Term) -> RowFilter:
    """A filter that keeps the rows that meet a term."""
    rows, values, want = view.rows, frozenset(term.values), not term.negated
    if term.key == "tag":
        return lambda some: [row for row in some if values.isdisjoint(rows[row].tags) != want]
    if term.key == "parent":
        return lambda some: [row for row in some if values.isdisjoint(rows[row].parents) != want]
    if term.key == "type":
        return lambda some: [row for row in some if (rows[row].type in values) == want]
    if term.key == "worker":
        return lambda some: [row for row in some if (rows[row].worker in values) == want]
    listed = frozenset(_indexed_rows(view, term) or ())
    return lambda some: [row for row in some if (row in listed) == want]


def _contains_filter(view: View, field: str, terms: Sequence[Term]) -> RowFilter:
    """A filter that keeps the rows that meet all terms of "desc" or of "text"; their text is
    casefolded once for all terms.
    """
    needles = [([value.casefold() for value in term.values], not term.negated) for term in terms]

    def meets(row: int) -> bool:
        text = folded(view.rows[row], field)
        return all(
            any(_contains(text, value) for value in values) == want for values, want in needles
        )

    return lambda some: [row for row in some if meets(row)]


def _contains(text: str, needle: str) -> bool:
    spend(len(text))
    return needle in text
