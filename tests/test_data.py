"""Data as a context: values of JSON and frames, as objects in the REPL, cited by path or row."""

import datetime as dt
import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, Data
from rlm_integrations.corpus import Corpus, data
from rlm_integrations.corpus.data_places import locate_path
from rlm_integrations.corpus.data_shape import describe_shape
from rlm_integrations.corpus.json_paths import place_of_path
from rlm_integrations.corpus.locations import find_locations
from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef
from rlm_integrations.storage import Storage
from tests.engine.conftest import Scripted, code, run

ORDERS: dict[str, Any] = {
    "items": [
        {"name": "Ada", "price": 1.5, "note": 'a "long"\nnote'},
        {"name": "Zo\xeb", "price": None},
    ],
    "total": 2,
}


def cited(corpus: Corpus, path: str, source: str | None = None) -> list[tuple[str, str]]:
    """The text and the location of each place of a path."""
    spans = locate_path(corpus, path, source)
    where = find_locations(corpus, spans)
    return [(corpus.text(each.source, each.start, each.end), where[each]) for each in spans]


@pytest.mark.parametrize(
    ("context", "kind"),
    [
        (ORDERS, "data"),
        ([1, 2], "data"),
        ([{"text": "a"}], "data"),
        ([["a"]], "data"),
        ({"a": "text", "b": True}, "data"),
        (Data({"a": "text"}), "data"),
        (Data(["a", "b"]), "data"),
        (Data({}), "data"),
        ({"a": "text"}, "texts by name"),
        ({"a": Data([1])}, "texts by name"),
        (["a", "b"], "list of texts"),
        (["a", Data({"b": 1})], "list of texts"),
        ([], "list of texts"),
        ({}, "list of texts"),
    ],
)
def test_what_is_data_and_what_is_texts(context: object, kind: str) -> None:
    """A dict or list with a number, a boolean, a dict or a list in it is data; one of strings is
    texts, unless it is wrapped.
    """
    with Corpus.build(context) as corpus:
        assert corpus.kind == kind


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "Data needs a dict, a list, or a frame of pandas or polars, not str"),
        ({"a": [1, {2}]}, r"not JSON: \$\.a\[1\] is of type set; pass a string or a number"),
        ({1: 2}, "a key of the data is not a string: 1"),
        ([(1, 2)], r"\$\[0\] is of type tuple"),
    ],
)
def test_what_is_not_json_is_refused(value: object, message: str) -> None:
    """What JSON does not have is an error with its path."""
    with pytest.raises(ContextError, match=message):
        Corpus.build(Data(value))


def test_data_in_a_circle_is_refused() -> None:
    """A value that has itself, or is nested very deep, is an error, not an endless copy."""
    circle: list[Any] = [1]
    circle.append(circle)
    with pytest.raises(ContextError, match="nested more than 100 deep"):
        Corpus.build(circle)


async def test_code_gets_the_object_and_cites_paths(tmp_path: Path) -> None:
    """`context` is the object, `context_0` its JSON; a path is evidence; the model is told the
    shape; a run that is read back from a storage has the object again.
    """
    root = Scripted(
        [
            code(
                "print(context['items'][1]['name'], type(context_0).__name__, len(context_metadata))",
                "assert json.loads(context_0) == context",
                "note = cite('$.items[0].note')",
                "FINAL('x', evidence=[note, '$.items[1]', '\"price\": 1.5', '$.nothing'])",
            )
        ]
    )
    with Storage(tmp_path / "runs") as storage:
        result = await run(root, ORDERS, storage=storage)
        assert result.repl_history[0].stdout == "Zo\xeb str 3\n"
        assert [(each.location, each.quote) for each in result.citations] == [
            ("$.items[0].note", r'"a \"long\"\nnote"'),
            ("$.items[1]", '{"name": "Zo\xeb", "price": null}'),
            ("$.items[0].price", '"price": 1.5'),
        ]
        assert [each.evidence for each in result.dropped] == ["$.nothing"]
        question = root.requests[0].messages[-1].content
        shape = "{'items': [2 of {'name': str, 'price': float | None, 'note': str}], 'total': int}"
        assert "The context is data, not a text. context_0 is its JSON," in question
        assert f"context is {shape}." in question
        with storage.document(result.run_id) as again:
            assert again.kind == "data"
            assert cited(again, "$.total") == [("2", "$.total")]


@pytest.mark.filterwarnings("ignore:sandbox='inprocess':RuntimeWarning")
@pytest.mark.parametrize("sandbox", ["process", "inprocess"])
async def test_data_beside_texts(sandbox: str) -> None:
    """Data in a dict of texts is an object by its name, in each sandbox; `grep` searches its JSON; a
    child that gets its JSON has the object, too.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "print(context['orders']['total'], context['note'])",
                    "print(grep('Ada')[0].path, grep('rent')[0].line)",
                    "FINAL(recursive_lm('child?', context_1))",
                )
            ],
            "child?": [code("FINAL(context['total'], evidence=['$.total'])")],
        }
    )
    context = {"note": "the rent", "orders": Data(ORDERS)}
    result = await run(root, context, "root?", max_depth=2, sandbox=sandbox)
    assert result.repl_history[0].stdout == "2 the rent\norders 1\n"
    assert result.answer == "2"
    (call,) = result.repl_history[0].subcalls
    assert [each.location for each in call.citations] == ["orders $.total"]
    assert "context['orders'] is {'items': [2 of " in root.requests[0].messages[-1].content


def frame_of(library: str) -> Any:
    """A frame with a missing number and a date."""
    frames = importlib.import_module(library)
    return frames.DataFrame(
        {
            "name": ["Ada", "Zo\xeb"],
            "price": [0.1 + 0.2, None],
            "on": [dt.datetime(2020, 1, 2, tzinfo=dt.UTC), None],
            "count": [1, 2],
        }
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_is_its_rows(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is a list of dicts with what JSON has: exact numbers, None for what is missing, text
    for dates. It is cited by row and column, also above the size from which it is CSV.
    """
    frame = frame_of(library)
    with Corpus.build({"prices": frame}) as corpus:
        rows = json.loads(corpus.text("prices"))
        assert rows[0] == {
            "name": "Ada",
            "price": 0.1 + 0.2,
            "on": "2020-01-02 00:00:00+00:00",
            "count": 1,
        }
        assert rows[1] == {"name": "Zo\xeb", "price": None, "on": None, "count": 2}
        (described,) = corpus.metadata["sources"]
        assert described["metadata"]["rows"] == 2
        assert list(described["metadata"]["columns"]) == ["name", "price", "on", "count"]
        assert cited(corpus, "$[1].name") == [('"Zo\xeb"', "prices row 2, column name")]
        assert cited(corpus, "$[0]")[0][1] == "prices row 1"
    monkeypatch.setattr(data, "MAX_OBJECT_CELLS", 7)
    with Corpus.build(frame) as corpus:
        text = corpus.text("context_0")
        assert (corpus.kind, corpus.sources[0].metadata["data"]) == (
            "text",
            "table, as a text in CSV",
        )
        at = text.index("Zo\xeb")
        spans = [SpanRef("context_0", at, at + 3), SpanRef("context_0", 0, 4)]
        assert [*find_locations(corpus, spans).values()] == ["header", "row 2, column name"]


def test_what_is_special_in_frames() -> None:
    """An index of its own is a column; values of numpy are numbers and lists; columns without names
    of their own, series and lazy frames are errors; not a number of polars stays one.
    """
    names = ("numpy", "pandas", "polars")
    numpy, pandas, polars = (importlib.import_module(name) for name in names)
    indexed = pandas.DataFrame({"a": [1]}, index=pandas.Index(["x"], name="key"))
    with Corpus.build(indexed) as corpus:
        assert json.loads(corpus.text("context_0")) == [{"key": "x", "a": 1}]
    mixed = pandas.DataFrame(
        {"a": pandas.Series([numpy.int64(1), numpy.array([2.5])], dtype=object)}
    )
    with Corpus.build(mixed) as corpus:
        assert json.loads(corpus.text("context_0")) == [{"a": 1}, {"a": [2.5]}]
    with Corpus.build(polars.DataFrame({"a": [math.nan], "b": [[{"c": None}]]})) as corpus:
        assert corpus.text("context_0") == '[\n{"a": NaN, "b": [{"c": null}]}\n]'
    for frame, message in [
        (indexed.assign(key=1), "the index of the frame cannot be a column"),
        (pandas.DataFrame([[1, 2]]), "each column of a frame needs its own name"),
        (indexed["a"], r"a Series of pandas: pass a DataFrame, such as \.to_frame\(\)"),
        (polars.LazyFrame({"a": [1]}), r"a LazyFrame of polars: .* \.collect\(\)"),
    ]:
        with pytest.raises(ContextError, match=message):
            Corpus.build(frame)


def test_offline_answers_over_data() -> None:
    """The stand-in for a model reads the JSON of data, and cites it by path."""
    result = RLM("offline").completion(
        "What did Ada Conti approve?",
        {"notes": [{"text": "Ada Conti approved the dam."}, {"text": "Rain fell."}]},
    )
    assert "approved the dam" in result.answer
    assert result.citations[0].location == "$.notes"


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ([], "[0]"),
        ([1, "a", None], "[3 of int | str | None]"),
        ([[1], [2, 3]], "[2 of [1 to 2 of int]]"),
        (
            {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
            "{'a': {'b': {'c': {'d': {'e': {1 keys}}}}}}",
        ),
        ({str(key): 1 for key in range(40)}, None),
        ({"k" * 2_000: 1}, None),
    ],
)
def test_shapes_are_short(value: object, shape: str | None) -> None:
    """The shape names types and keys, down to a depth, and is never long."""
    found = describe_shape(value)
    assert found == shape if shape is not None else len(found) <= 1_501 and "…" in found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("$", '{"a b": [1, {"c": "d"}], "e": {}}'),
        ('$["a b"][1].c', '"d"'),
        ("$['a b'][0]", "1"),
        ("$.e", "{}"),
        ("$.e.x", None),
        ("$.e[0]", None),
        ('$["a b"][2]', None),
        ('$["a b"].c', None),
        ("$.x", None),
        ("$ and more", None),
        ('$["\\x"]', None),
        ("e", None),
    ],
)
def test_places_of_paths(path: str, text: str | None) -> None:
    """A path is the place of its value; what is no path, or has no value, has no place."""
    whole = ' {"a b": [1, {"c": "d"}], "e": {}}\n'
    place = place_of_path(whole, path)
    assert (None if place is None else whole[slice(*place)]) == text
    assert place_of_path('{"a": [1', "$.a[1]") is None
