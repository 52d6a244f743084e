"""The query language: the parsed terms, and the column of errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.errors import InputError, QueryError
from rlm_integrations.store.query import CONTAINS, EXACT, SINGLE, Query, Term, parse_query
from tests.store.examples import examples


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query()),
        (" \t\n ", Query()),
        ("type=note", Query((Term("type", ("note",)),))),
        (
            "  type=note\n-tag=x  ",
            Query((Term("type", ("note",)), Term("tag", ("x",), negated=True))),
        ),
        ('desc~"two words"', Query((Term("desc", ("two words",)),))),
        ("desc~it's", Query((Term("desc", ("it's",)),))),
        ('desc~5"', Query((Term("desc", ('5"',)),))),
        ("desc~'\"a\" | b'", Query((Term("desc", ('"a" | b',)),))),
        (r'text~"a \"quote\" and a \\"', Query((Term("text", ('a "quote" and a \\',)),))),
        (r"tag=a\ b\|c\"d", Query((Term("tag", ('a b|c"d',)),))),
        (r"tag=\"a\"", Query((Term("tag", ('"a"',)),))),
        ("tag=a=b~c", Query((Term("tag", ("a=b~c",)),))),
        ('type=a|"b c"|d', Query((Term("type", ("a", "b c", "d")),))),
        ("tag=-x -tag=-y", Query((Term("tag", ("-x",)), Term("tag", ("-y",), negated=True)))),
        ("tag=中国|ü", Query((Term("tag", ("中国", "ü")),))),
        ("sort=oldest limit=7 invalid=any", Query((), "oldest", 7, "any")),
        ("limit='10000'", Query((), limit=10_000)),
        (
            "-type=a -type=b type=c",
            Query(
                (
                    Term("type", ("a",), negated=True),
                    Term("type", ("b",), negated=True),
                    Term("type", ("c",)),
                )
            ),
        ),
    ],
)
def test_valid_queries_parse(text: str, query: Query) -> None:
    """Terms, negation, alternatives, both kinds of quotes, escapes and options parse."""
    assert parse_query(text) == query


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("ppo", 1, "a single word"),
        ("type=note ppo", 11, "a single word"),
        ("type", 5, "= must follow type"),
        ("desc", 5, "~ must follow desc"),
        ("type=note -", 11, "a single word"),
        ("--type=note", 1, "a single word"),
        ("colour=red", 1, "'colour' is not a key"),
        ("-colour~red", 2, "'colour' is not a key"),
        ("Type=note", 1, "'Type' is not a key"),
        ("=note", 1, "'' is not a key"),
        ("type~note", 5, "type takes =, an exact term"),
        ("desc=note", 5, "desc takes ~, which means contains"),
        ("type=", 6, "type needs a value"),
        ("type= note", 6, "type needs a value"),
        ('tag=""', 5, "not empty"),
        ("tag=a||b", 7, "tag needs a value"),
        ("tag=a|", 7, "tag needs a value"),
        ('desc~"open', 6, "never closes"),
        (r'desc~"open\"', 6, "never closes"),
        ("desc~'it's'", 10, "a space or the end must follow"),
        ('desc~"a"b', 9, "a space or the end must follow"),
        ("tag=\\", 5, "backslash"),
        ("type=a type=b", 8, r"type=a\|b"),
        ("worker=a tag=x worker=a", 16, "one worker"),
        ("limit=0", 1, "at most 10,000"),
        ("limit=ten", 1, "not 'ten'"),
        ("limit=\u0661", 1, "limit must be an integer"),
        ("limit=99999999999999999999", 1, "limit must be an integer"),
        ("limit=5 limit=5", 9, "only once"),
        ("-limit=5", 1, "no minus"),
        ("limit=5|6", 1, "one value"),
        ("limit~5", 6, "limit takes ="),
        ("sort=size", 1, "newest, oldest, type, worker, description"),
        ("invalid=maybe", 1, "no, yes, any"),
        ("tag=a " * 65, 385, "at most 64 terms"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, message: str) -> None:
    """An error says what is wrong, where, and what is accepted."""
    with pytest.raises(QueryError, match=message) as caught:
        parse_query(text)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"column {column}: ")


KEYS = st.sampled_from([key for key in (*EXACT, *CONTAINS) if key not in SINGLE])
VALUES = st.text(min_size=1, max_size=8)


@examples(100)
@given(
    st.lists(
        st.tuples(
            KEYS, st.lists(VALUES, min_size=1, max_size=3), st.booleans(), st.sampled_from("'\"")
        ),
        max_size=5,
    )
)
def test_every_value_can_be_written(terms: list[tuple[str, list[str], bool, str]]) -> None:
    """A quoted value with escaped backslashes and quotes parses to the original value."""

    def quoted(value: str, quote: str) -> str:
        return quote + value.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote

    text = " ".join(
        ("-" if negated else "")
        + key
        + ("~" if key in CONTAINS else "=")
        + "|".join(quoted(value, quote) for value in values)
        for key, values, negated, quote in terms
    )
    assert parse_query(text) == Query(
        tuple(Term(key, tuple(values), negated) for key, values, negated, _ in terms)
    )


@examples(100)
@given(
    st.text(
        alphabet=st.one_of(st.sampled_from("typedsc=~|-\"'\\ \nlimt5"), st.characters()),
        max_size=40,
    )
)
def test_any_string_parses_or_has_an_error_column(text: str) -> None:
    """Any string is a valid query, or an error whose column is inside the string or right after
    it.
    """
    try:
        parse_query(text)
    except QueryError as error:
        assert 1 <= error.column <= len(text) + 1


def test_an_invalid_query_is_refused() -> None:
    """A query that is not a string, or is too long, is refused before it is parsed."""
    with pytest.raises(InputError, match="a query must be a string, not int"):
        parse_query(5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="longer than 10,000"):
        parse_query("x" * 10_001)
