"""`tools=`: the user's functions, called from the REPL by name, described in the prompt, and run
off the event loop unless async.
"""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from rlm_integrations import RLM
from rlm_integrations.engine.gate import _SHORTENED
from rlm_integrations.errors import InputError
from rlm_integrations.sandbox.wire import Opaque
from tests.engine.conftest import Scripted, code, run


def look_up(key: str, depth: int = 1) -> str:
    """Look up a key.

    In the register.
    """
    return f"{key} at {depth}"


async def test_a_tool_is_called_by_its_name_and_described() -> None:
    """Positional and keyword arguments work; signature and docstring are in the prompt and in
    `help`.
    """
    root = Scripted(
        [code("print(look_up.__doc__)", "FINAL([look_up('a'), look_up('b', depth=2)])")]
    )
    result = await run(root, tools=[look_up])
    assert result.answer == '["a at 1", "b at 2"]'
    assert (
        "- `look_up(key: str, depth: int = 1) -> str`: Look up a key. In the register.\n"
        in root.requests[0].messages[0].content
    )
    assert "look_up(key: str, depth: int = 1) -> str" in result.repl_history[0].stdout


async def test_a_sync_tool_runs_off_the_loop_and_an_async_one_on_it() -> None:
    """A sync tool does not block the loop; an async one may use objects of the caller's loop."""
    threads: dict[str, int] = {}

    def plain() -> None:
        threads["plain"] = threading.get_ident()

    async def native() -> None:
        threads["native"] = threading.get_ident()
        await asyncio.sleep(0)

    await run(Scripted([code("plain()", "native()", "FINAL(1)")]), tools=[plain, native])
    assert threads["plain"] != threading.get_ident() == threads["native"]


async def test_tools_see_the_callers_context_variables() -> None:
    """Sync and async tools see the caller's context variables, such as for tracing."""
    tenant = contextvars.ContextVar("tenant", default="nobody")

    def plain() -> str:
        return tenant.get()

    async def native() -> str:
        return tenant.get()

    tenant.set("me")
    assert (
        await run(Scripted([code("FINAL([plain(), native()])")]), tools=[plain, native])
    ).answer == '["me", "me"]'


async def test_tools_called_from_threads_run_at_the_same_time() -> None:
    """Three tools called from a thread pool run concurrently."""
    barrier = threading.Barrier(3, timeout=60)

    def meet(name: str) -> str:
        barrier.wait()
        return name

    block = code(
        "from concurrent.futures import ThreadPoolExecutor",
        "with ThreadPoolExecutor(3) as pool:",
        "    FINAL(list(pool.map(meet, 'abc')))",
    )
    assert (await run(Scripted([block]), tools=[meet])).answer == '["a", "b", "c"]'


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


@wrapped
async def hidden(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


async def test_a_coroutine_behind_a_decorator_is_awaited() -> None:
    """If a decorated tool returns a coroutine, it is awaited."""
    assert (await run(Scripted([code("FINAL(hidden(41))")]), tools=[hidden])).answer == "42"


def fails() -> None:
    raise LookupError("no such entry")


async def fails_natively() -> None:
    raise RuntimeError("the database is closed")


def leaves() -> None:
    raise SystemExit(3)


async def gives_up() -> None:
    raise asyncio.CancelledError


class OwnError(Exception):
    pass


def fails_its_own_way() -> None:
    raise OwnError("in its own words")


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        (fails, "LookupError: fails: no such entry"),
        (fails_natively, "RuntimeError: fails_natively: the database is closed"),
        (leaves, "leaves: 3"),
        (gives_up, "gives_up: it cancelled itself"),
        (fails_its_own_way, "fails_its_own_way: in its own words"),
    ],
)
async def test_exceptions_of_a_tool_raise_in_the_code(tool: Callable[..., Any], told: str) -> None:
    """A tool's exception raises in the code, with its own name if that is a builtin; the run
    continues.
    """
    root = Scripted([code(f"{tool.__name__}()"), code("FINAL('went on')")])
    result = await run(root, tools=[tool])
    assert result.answer == "went on"
    assert told in root.told[1]


@pytest.mark.parametrize("arguments", ["", "1, 2, 3, 4", "nope=1", "'a', key='b'"])
async def test_arguments_that_do_not_fit_are_a_type_error(arguments: str) -> None:
    """A wrong call never reaches the function's body, and the error names the function."""
    root = Scripted([code(f"look_up({arguments})"), code("FINAL('went on')")])
    await run(root, tools=[look_up])
    assert "TypeError: look_up" in root.told[1]


@dataclass
class Point:
    x: int
    y: int


class Row(BaseModel):
    when: date


def give_much() -> Any:
    return {
        1: Point(1, 2),
        "row": Row(when=date(2020, 1, 2)),
        "set": {5},
        "tuple": (1, None, True, 2.5),
        "bytes": b"b",
        "day": date(2020, 1, 2),
    }


class Awkward:
    def __str__(self) -> str:
        raise ValueError("no text for me")


def give_nothing_that_crosses(what: str) -> Any:
    deep: list[Any] = []
    for _ in range(1_000):
        deep = [deep]
    return {"deep": deep, "digits": 10**9_000, "awkward": Awkward()}[what]


async def test_results_cross_as_plain_data() -> None:
    """Records, models and sets become plain data, anything else its string."""
    result = await run(
        Scripted([code("import json", "FINAL(json.dumps(give_much(), sort_keys=True))")]),
        tools=[give_much],
    )
    assert result.answer == (
        '{"1": {"x": 1, "y": 2}, "bytes": "b\'b\'", "day": "2020-01-02", "row": {"when": "2020-01-02"}, "set": [5], '
        '"tuple": [1, null, true, 2.5]}'
    )


@pytest.mark.parametrize("what", ["deep", "digits", "awkward"])
async def test_results_that_cannot_cross_are_errors(what: str) -> None:
    """A result that cannot be converted is an error in the code, and does not end the run."""
    root = Scripted([code(f"x = 1\ngive_nothing_that_crosses({what!r})"), code("FINAL(x)")])
    assert (await run(root, tools=[give_nothing_that_crosses])).answer == "1"
    assert "give_nothing_that_crosses: " in root.told[1]


async def test_a_tool_may_start_a_run() -> None:
    """A sync tool can call the synchronous API while its own run waits."""
    inner = RLM(Scripted([code("FINAL('from within')")]))

    def nested() -> str:
        return inner.completion("And within?", "a document").answer

    assert (await run(Scripted([code("FINAL(nested())")]), tools=[nested])).answer == "from within"


def named(name: str) -> Callable[..., Any]:
    def tool() -> None: ...

    tool.__name__ = name
    return tool


@pytest.mark.parametrize(
    "name",
    [
        "llm_query",
        "context",
        "context_7",
        "FINAL",
        "store",
        "SpanRef",
        "print",
        "answer",
        "__main__",
    ],
)
def test_taken_names_are_refused(name: str) -> None:
    """A tool cannot replace a name of the REPL, builtins included."""
    with pytest.raises(InputError, match=f"cannot be named '{name}'"):
        RLM("offline", tools=[named(name)])


def test_two_tools_of_one_name_are_refused() -> None:
    """Two tools with the same name are refused."""
    with pytest.raises(InputError, match="cannot be named 'twice'"):
        RLM("offline", tools=[named("twice"), named("twice")])


@pytest.mark.parametrize(
    "tools",
    [
        [lambda: 1],
        [functools.partial(look_up, "a")],
        [Point],
        ["look_up"],
        [5],
        look_up,
        "look_up",
        5,
    ],
)
def test_only_plain_functions_are_accepted(tools: Any) -> None:
    """Lambdas, classes, partials and strings, which have no description for the model, are refused,
    as is a function that is not in a list.
    """
    with pytest.raises(InputError, match="tool"):
        RLM("offline", tools=tools)


class Seen(dict[str, int]):
    """A dict that counts the entries that are looked at."""

    looked = 0

    def items(self) -> Any:
        for item in super().items():
            Seen.looked += 1
            yield item

    def __iter__(self) -> Any:
        for key in super().__iter__():
            Seen.looked += 1
            yield key


def test_arguments_are_shortened_before_they_are_written() -> None:
    """The record of a call shows a few entries of each value, and no more of it is read, whatever
    code passes.
    """
    large = Seen({f"key {number}": number for number in range(10_000)})
    shown = _SHORTENED.call(
        ["x" * 10**6, [1] * 10**6, large, 1 << 10**5], {"name": Opaque("T", "t")}
    )
    assert len(shown) < 600
    assert Seen.looked <= 10
    assert shown.endswith("<int of 100,001 bits>, name=<T>")
    assert "'key 0': 0, 'key 1': 1" in shown
