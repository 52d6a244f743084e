"""Invalid arguments: calls on the proxy of worker "w", and the words that their errors must
contain. The store has the object `w_000001` and a document whose first source has 40 characters.
"""

import math

from rlm_integrations.records import SpanRef


def _circle() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


def _nested(levels: int) -> list[object]:
    nested: list[object] = []
    for _ in range(levels):
        nested = [nested]
    return nested


BAD_INPUT = {
    "content that is not JSON": (lambda w: w.create("note", "d", {1, 2}), "content must be JSON"),
    "a function as content": (lambda w: w.create("note", "d", print), "content must be JSON"),
    "a span in content": (
        lambda w: w.create("note", "d", {"at": SpanRef("context_0", 0, 1)}),
        "backrefs",
    ),
    "not a number": (lambda w: w.create("note", "d", [math.nan]), "content must be JSON"),
    "an endless number": (lambda w: w.create("note", "d", 10**5000), "content must be JSON"),
    "content that holds itself": (
        lambda w: w.create("note", "d", _circle()),
        "content must be JSON",
    ),
    "deep content": (lambda w: w.create("note", "d", _nested(65)), "64 levels"),
    "very deep content": (
        lambda w: w.create("note", "d", _nested(100_000)),
        "content must be JSON",
    ),
    "too much content": (lambda w: w.create("note", "d", "x" * 10_000_001), "10,000,000"),
    "no type": (lambda w: w.create("", "d", "c"), "type must not be empty"),
    "a type of spaces": (lambda w: w.create("  ", "d", "c"), "type must not be empty"),
    "a type that is not a string": (
        lambda w: w.create(None, "d", "c"),
        "type must be a string, not None",
    ),
    "a long type": (lambda w: w.create("x" * 201, "d", "c"), "200"),
    "a description that is not a string": (
        lambda w: w.create("note", 5, "c"),
        "description must be a string, not 5",
    ),
    "a long description": (lambda w: w.create("note", "d" * 2_001, "c"), "2,000"),
    "an unknown parent": (
        lambda w: w.create("note", "d", "c", parents=["w_000009"]),
        "no object has the id 'w_000009'",
    ),
    "a parent that is not an id": (
        lambda w: w.create("note", "d", "c", parents=[7]),
        r"parents\[0\]",
    ),
    "parents that are no list": (
        lambda w: w.create("note", "d", "c", parents=7),
        "parents must be a list",
    ),
    "too many parents": (
        lambda w: w.create("note", "d", "c", parents=["w_000001"] * 1_001),
        "1,000",
    ),
    "an empty tag": (
        lambda w: w.create("note", "d", "c", tags=["x", ""]),
        r"tags\[1\] must not be empty",
    ),
    "a tag that is not a string": (
        lambda w: w.create("note", "d", "c", tags=[["x"]]),
        r"tags\[0\] must be a string",
    ),
    "a span to an unknown source": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_7", 0, 1)]),
        "context_7",
    ),
    "a span beyond the end": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_0", 0, 41)]),
        "40 characters",
    ),
    "a span backwards": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_0", 5, 4)]),
        "start <= end",
    ),
    "a span before the start": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_0", -1, 4)]),
        "start <= end",
    ),
    "a span between numbers": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_0", 0, 1.5)]),
        "must be an integer",
    ),
    "a span with a bool": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_0", True, True)]),
        "must be an integer",
    ),
    "a span with a huge number": (
        lambda w: w.create("note", "d", "c", [SpanRef("context_0", 0, 10**5000)]),
        "more than 30 digits",
    ),
    "a quote that was not found": (lambda w: w.create("note", "d", "c", [None]), r"cite\(\)"),
    "a span as a string": (lambda w: w.create("note", "d", "c", "context_0"), "SpanRef"),
    "a span as an odd dict": (
        lambda w: w.create("note", "d", "c", [{"source_id": "context_0", "start": 0, "end": 1}]),
        "SpanRef",
    ),
    "an id that is not there": (lambda w: w.get("w_000002"), "no object has the id 'w_000002'"),
    "an id that is a list": (lambda w: w.get(["w_000001"]), "no object has the id a list"),
    "a long id": (lambda w: w.children("x" * 100_000), "no object has the id 'xxxx"),
    "parents of nothing": (lambda w: w.parents(None), "no object has the id None"),
    "a trace of nothing": (lambda w: w.trace(0), "no object has the id 0"),
    "invalidating nothing": (lambda w: w.invalidate("nope", "r"), "no object has the id 'nope'"),
    "no reason": (lambda w: w.invalidate("w_000001", None), "reason must be a string"),
    "a link of an unknown kind": (
        lambda w: w.link("likes", "w_000001", "w_000001"),
        "supports, contradicts, refines",
    ),
    "a link of no kind": (
        lambda w: w.link([], "w_000001", "w_000001"),
        "supports, contradicts, refines",
    ),
    "a link to nothing": (lambda w: w.link("supports", "w_000001", "nope"), "dst: no object"),
    "a link from nothing": (lambda w: w.link("supports", "nope", "w_000001"), "src: no object"),
    "a limit below 1": (lambda w: w.view("", 0), "limit must be an integer of at least 1"),
    "no limit": (
        lambda w: w.search_text("a", None),
        "limit must be an integer of at least 1",
    ),
    "a huge limit": (lambda w: w.summary("", 10**5000), "limit must be an integer of at least 1"),
    "a free text of bytes": (
        lambda w: w.search_text(b"a"),
        "text must be a string, not a bytes",
    ),
    "a query that is a list": (
        lambda w: w.search(["type=note"]),
        "a query must be a string, not list",
    ),
    "a long query": (lambda w: w.search("desc~" + "x" * 10_000), "longer than 10,000"),
    "a number of no event": (lambda w: w.events_since("0"), "seq must be the number of an event"),
}
