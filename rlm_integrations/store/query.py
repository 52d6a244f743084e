r"""The store's query language, from text to `Query`.

    query  = terms joined by spaces; an object must meet all of them
    term   = ["-"] key "=" value {"|" value}     key: type tag worker id parent supports contradicts
    refines
           | ["-"] key "~" value {"|" value}     key: desc text
           | "sort" "=" ("newest" | "oldest" | "type" | "worker" | "description")
           | "limit" "=" number
           | "invalid" "=" ("no" | "yes" | "any")
    value  = quoted with " or ' on both sides, or bare: up to the next space or |

`=` is an exact term, `~` means "contains", ignoring case. `-` negates, `|` gives alternatives.
A backslash takes the next character literally. Invalidated objects are skipped unless asked for:
`invalid=yes` shows them alone, `invalid=any` shows them too.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from rlm_integrations.errors import InputError, QueryError

Sort = Literal["newest", "oldest", "type", "worker", "description"]
Invalid = Literal["no", "yes", "any"]

EXACT: Final = ("type", "tag", "worker", "id", "parent", "supports", "contradicts", "refines")
CONTAINS: Final = ("desc", "text")
SINGLE: Final = ("type", "worker", "id")  # an object has exactly one of each
OPTIONS: Final = {"sort": get_args(Sort), "invalid": get_args(Invalid), "limit": ()}
MAX_RESULTS: Final = 10_000  # results of one query
QUERY_CHARS: Final = 10_000
TERMS: Final = 64

_TERM = re.compile(r"(?P<minus>-?)(?P<key>\w*)(?P<op>[=~]?)")
_BARE = re.compile(r"(?:[^\s|\\]|\\.)+", re.DOTALL)
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL),
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_HELP: Final = (
    'a query consists of terms such as type=note tag=x worker=w parent=id desc~"words" '
    'text~"words" -type=draft limit=20'
)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: the object's `key` is, or for "desc" and "text" contains, one of the values;
    or none of them if negated.
    """

    key: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. `sort` and `limit` are None if it does not set them; the newest object then
    comes first.
    """

    terms: tuple[Term, ...] = ()
    sort: Sort | None = None
    limit: int | None = None
    invalid: Invalid = "no"


def parse_query(text: str) -> Query:
    """The query that a string expresses.

    Raises:
        QueryError: It does not parse; `column` points at the place.
        InputError: It is not a string, or longer than a query can be.
    """
    if not isinstance(text, str):
        raise InputError(f"a query must be a string, not {type(text).__name__}: {_HELP}")
    if len(text) > QUERY_CHARS:
        raise InputError(f"a query of {len(text):,} characters is longer than {QUERY_CHARS:,}")
    terms: list[Term] = []
    options: dict[str, str] = {}
    at = _skip_spaces(text, 0)
    while at < len(text):
        start = at
        term, at = _parse_term(text, at)
        if term.key in OPTIONS:
            _check_option(term, options, start)
            options[term.key] = term.values[0]
        else:
            if (
                term.key in SINGLE
                and not term.negated
                and any(term.key == other.key and not other.negated for other in terms)
            ):
                raise _query_error(
                    start, f"an object has one {term.key}: write alternatives as {term.key}=a|b"
                )
            terms.append(term)
        if len(terms) > TERMS:
            raise _query_error(start, f"a query has at most {TERMS} terms")
        if at < len(text) and not text[at].isspace():
            raise _query_error(at, f"a space or the end must follow here, not {text[at]!r}")
        at = _skip_spaces(text, at)
    limit = int(options["limit"]) if "limit" in options else None
    return Query(
        tuple(terms),
        cast("Sort | None", options.get("sort")),
        limit,
        cast("Invalid", options.get("invalid", "no")),
    )


def _parse_term(text: str, at: int) -> tuple[Term, int]:
    match = cast(
        "re.Match[str]", _TERM.match(text, at)
    )  # the pattern always matches, if only the empty string
    minus, key, operator = match["minus"], match["key"], match["op"]
    known = key in EXACT or key in CONTAINS or key in OPTIONS
    if not operator:
        if known:
            raise _query_error(match.end(), f"{'~' if key in CONTAINS else '='} must follow {key}")
        raise _query_error(
            at,
            (
                'a single word is not a term: write desc~"…" or text~"…", or use search_text '
                f"for free text; {_HELP}"
            ),
        )
    if not known:
        raise _query_error(match.start("key"), f"{key[:40]!r} is not a key: {_HELP}")
    if (operator == "~") != (key in CONTAINS):
        raise _query_error(
            match.start("op"),
            f"{key} takes {'~, which means contains' if key in CONTAINS else '=, an exact term'}",
        )
    at = match.end()
    values = []
    while True:
        value, at = _parse_value(text, at, key)
        values.append(value)
        if text[at : at + 1] != "|":
            return Term(key, tuple(values), negated=bool(minus)), at
        at += 1


def _parse_value(text: str, at: int, key: str) -> tuple[str, int]:
    quote = _QUOTED.get(text[at : at + 1])
    match = (quote or _BARE).match(text, at)
    if match is None:
        if quote:
            raise _query_error(
                at,
                (
                    f"the quote that opens here never closes: a {text[at]} within the value is "
                    f"written \\{text[at]}"
                ),
            )
        if text[at : at + 1] == "\\":
            raise _query_error(
                at, "a backslash takes the next character literally, but none follows"
            )
        raise _query_error(
            at,
            (
                f"{key} needs a value; quote a value with spaces, as in "
                f'{key}{"~" if key in CONTAINS else "="}"two words"'
            ),
        )
    value = _ESCAPE.sub(r"\1", match[1] if quote else match[0])
    if not value:
        raise _query_error(at, f"{key} needs a value that is not empty")
    return value, match.end()


def _check_option(term: Term, seen: dict[str, str], at: int) -> None:
    value = term.values[0]
    if term.negated or len(term.values) > 1:
        raise _query_error(at, f"{term.key} takes one value and no minus")
    if term.key in seen:
        raise _query_error(at, f"{term.key} may be given only once")
    if term.key == "limit":
        if not (
            value.isascii()
            and value.isdigit()
            and len(value) < 9
            and 1 <= int(value) <= MAX_RESULTS
        ):
            raise _query_error(
                at,
                (
                    f"limit must be an integer of at least 1 and at most {MAX_RESULTS:,}, not "
                    f"{value[:40]!r}"
                ),
            )
    elif value not in OPTIONS[term.key]:
        raise _query_error(
            at, f"{term.key} is one of {', '.join(OPTIONS[term.key])}, not {value[:40]!r}"
        )


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _query_error(at: int, message: str) -> QueryError:
    return QueryError(f"column {at + 1}: {message}", column=at + 1)
