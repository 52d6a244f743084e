"""Invalid input: clear errors before anything is charged, and in the REPL errors that the model can
act on. No other exception is raised.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_integrations import RLM, Budget, Limits, OpenAILM, Retry
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.children import spawner
from rlm_integrations.engine.gate import Gate
from rlm_integrations.engine.host.host import Host
from rlm_integrations.engine.notebook import Notebook, Quotes
from rlm_integrations.engine.tree import RunStart, Tree
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.events import Emitter
from rlm_integrations.records import LLMError, SpanRef, StoreObject
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.sandbox.encoder import Encoder
from rlm_integrations.sandbox.wire import Opaque
from tests.engine.conftest import Scripted, code, final, models, run
from tests.standin import StandIn

# Invalid input of users.


@pytest.mark.parametrize("question", ["", "   ", "\n\t", None, 5, b"What?", ["What?"]])
async def test_an_invalid_question(question: Any) -> None:
    """An empty question, or one that is not a string, is refused."""
    root = Scripted([final("1")])
    with pytest.raises(InputError, match="the question must be a string that is not empty"):
        await RLM(root).acompletion(question, "a document")
    assert root.requests == []


@pytest.mark.parametrize(
    "context",
    [
        None,
        5,
        b"bytes",
        {"a": b"bytes"},
        [object()],
        object(),
        Path("/no/such/file"),
        Path("/dev/null"),
    ],
)
async def test_an_invalid_context(context: Any) -> None:
    """A context of the wrong type, or a path that cannot be read, is refused with what to pass
    instead, before any call.
    """
    root = Scripted([final("1")])
    with pytest.raises(ContextError) as caught:
        await RLM(root).acompletion("What?", context)
    assert len(str(caught.value)) > 20
    assert root.requests == []


async def test_invalid_bytes_are_located(tmp_path: Path) -> None:
    """Invalid UTF-8 is refused with its position; `Limits.decode_errors` sets another treatment."""
    (tmp_path / "document").write_bytes(b"fine so far \xff and on")
    root = Scripted([final("context")])
    with pytest.raises(ContextError, match="12"):
        await RLM(root).acompletion("What?", tmp_path / "document")
    assert root.requests == []
    result = await RLM(root, limits=Limits(decode_errors="replace")).acompletion(
        "What?", tmp_path / "document"
    )
    assert result.answer == "fine so far � and on"


@pytest.mark.parametrize("context", ["", [], [""], ["", ""]])
async def test_an_empty_context_is_allowed(context: Any) -> None:
    """The model is told that the context is empty, and may still answer."""
    root = Scripted([final("[context, cite('x')]")])
    result = await run(root, context)
    assert "The context is empty: there is no text in it." in root.told[0]
    assert (result.stop_reason, result.citations) == ("final", ())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_iterations": 0}, "max_iterations must be an integer of at least 1, not 0"),
        ({"max_iterations": True}, "max_iterations must be an integer"),
        ({"max_depth": -1}, "max_depth must be an integer"),
        ({"max_parallel_calls": 1.5}, "max_parallel_calls must be an integer"),
        ({"store_mode": "global"}, "store_mode='global': choose 'auto', 'shared' or 'none'"),
        ({"store_mode": []}, "store_mode"),
        (
            {"sandbox": "docker"},
            "there is no sandbox 'docker'; choose one of 'process', 'inprocess'",
        ),
        ({"sandbox": 5}, "sandbox"),
        ({"budget": {"max_calls": 5}}, "budget must be a Budget, not dict"),
        ({"limits": 5}, "limits must be a Limits, not int"),
        ({"storage": "runs/"}, "storage must be a Storage, as in Storage"),
        ({"verbose": "no"}, "verbose='no': choose True or False"),
        ({"show_progress": 1}, "show_progress=1: choose True or False"),
        ({"tools": ["name"]}, "a tool must be a plain function"),
        ({"on_event": 5}, "on_event must be a function"),
        ({"output_type": 5}, "is not a type that pydantic validates"),
        ({"sub_llm": {}}, "needs a name for each model"),
        ({"sub_llm": {"": "offline"}}, "needs a name for each model"),
        ({"sub_llm": {5: "offline"}}, "needs a name for each model"),
        ({"sub_llm": 5}, "a model is a name"),
        ({"sub_llm": "vllm:llama3"}, "a model is a name"),
    ],
)
def test_invalid_options(options: dict[str, Any], match: str) -> None:
    """An invalid option is refused by the constructor, with its name and the valid values."""
    with pytest.raises(InputError, match=match):
        RLM("offline", **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Budget(max_calls=value),
        lambda value: Budget(max_tokens=value),
        lambda value: Budget(max_seconds=value),
    ],
)
@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan")])
def test_invalid_budgets(make: Callable[[Any], Budget], value: Any) -> None:
    """Negative budgets, zero, strings and NaN are refused."""
    with pytest.raises(InputError, match="Budget"):
        make(value)


@pytest.mark.parametrize(
    "field",
    [
        "memory",
        "block_seconds",
        "stdout_kept",
        "compact_at",
        "window",
        "call_seconds",
        "single_call_below",
    ],
)
@pytest.mark.parametrize("value", [-1, "5", None, float("nan")])
def test_invalid_limits(field: str, value: Any) -> None:
    """The same for every field of Limits."""
    with pytest.raises(InputError, match=f"Limits\\({field}="):
        Limits(**{field: value})


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (
            {"compact_at": 5.0},
            r"Limits\(compact_at=5.0\): it is a fraction of the model's window, at most 1",
        ),
        ({"encoding": "klingon"}, "unknown encoding: klingon: choose an encoding such as 'utf-8'"),
        ({"encoding": "base64"}, "is not a text encoding"),
        ({"encoding": "utf-8\0"}, "null character"),
        ({"encoding": 8}, "must be strings"),
        ({"decode_errors": "guess"}, "unknown error handler name 'guess'"),
    ],
)
def test_limits_are_checked_by_the_constructor(limits: dict[str, Any], match: str) -> None:
    """Values are checked by the constructor of Limits, not at the first document."""
    with pytest.raises(InputError, match=match):
        Limits(**limits)


@pytest.mark.parametrize(
    ("retry", "match"),
    [
        ({"failures": 2.5}, "an integer"),
        ({"seconds": True}, "number"),
        ({"refusals": -1}, "at least 0"),
    ],
)
def test_invalid_retries(retry: dict[str, Any], match: str) -> None:
    """An invalid Retry is refused by its constructor."""
    with pytest.raises(InputError, match=match):
        Retry(**retry)


@pytest.mark.parametrize(
    "model", ["", " ", "vllm:llama3", "openai:gpt@nowhere", 5, None, object(), OpenAILM]
)
def test_invalid_models(model: Any) -> None:
    """An unknown model name, or an object that is not a model, is refused with the valid forms."""
    with pytest.raises(InputError, match=r"a model is a name|of the form|reads as"):
        RLM(model)


def test_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, a model of OpenAI is refused by the constructor, and the message names the
    model that needs none.
    """
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="offline"):
        RLM("gpt-5-mini")


# Invalid input of model code.


async def test_a_model_that_was_not_registered_is_never_called(server: StandIn) -> None:
    """An address in `model=`, which would receive document and key, is an error that lists the
    registered models; nothing is sent.
    """
    server.change(
        scripts={
            "root": [
                code(f"llm_query('secret', model='openai:evil@{server.base_url}')"),
                code(f"llm_batch(['secret'], model='{server.base_url}')"),
                code("parallel_query('{chunk}', ['secret'], model='gpt-5')"),
                code("llm_query('secret', model=['strong'])"),
                code("llm_query('secret', 'sub')"),
                code(
                    "FINAL(llm_query('fine', model='strong') + llm_batch(['fine'], model='fast')[0])"
                ),
            ]
        }
    )
    root, fast, strong = models(server.base_url, "root", "fast-model", "strong-model")
    result = await RLM(root, {"fast": fast, "strong": strong}).acompletion("What?", "a document")
    assert result.answer.count("answer ") == 2
    calls = [call.model for call in server.calls()]
    assert (calls.count("root"), sorted(set(calls) - {"root"})) == (
        6,
        ["fast-model", "strong-model"],
    )
    told = [
        kept.body["messages"][-1]["content"]
        for kept in server.requests()
        if kept.body["model"] == "root"
    ][1:]
    assert all("is not registered; registered are: 'fast', 'strong'" in each for each in told)


BAD_CALLS = [
    ("llm_query()", "TypeError: llm_query(prompt, model=None)"),
    ("llm_query(5)", "TypeError: llm_query: the prompt must be a string, not int"),
    ("llm_query(None)", "not NoneType"),
    ("llm_query(['a'])", "not list"),
    ("llm_query(object())", "not object"),
    ("llm_query('a', temperature=0)", "TypeError: llm_query(prompt, model=None)"),
    ("llm_batch('abc')", "TypeError: llm_batch: the prompts must be a list of strings, not str"),
    ("llm_batch(None)", "not NoneType"),
    ("llm_batch(['a'], max_concurrent=0)", "max_concurrent must be an integer of at least 1"),
    ("llm_batch(['a'], max_concurrent='many')", "max_concurrent must be an integer of at least 1"),
    ("parallel_query('no place for it', ['a'])", "the template must be a string with {chunk}"),
    ("parallel_query(5, ['a'])", "the template must be a string with {chunk}, not int"),
    ("parallel_query('{chunk}', 'abc')", "the chunks must be a list of strings, not str"),
    ("recursive_lm('', 'text')", "the query must be a string that is not empty"),
    ("recursive_lm(5, 'text')", "the query must be a string that is not empty"),
    ("recursive_lm('q', 5)", "the context must be a string, or a list or dict of strings, not int"),
    (
        "recursive_lm('q', ['a', 5])",
        "the context must be a string, or a list or dict of strings, not list",
    ),
    ("recursive_lm('q')", "TypeError: recursive_lm(query, context_subset)"),
    ("recursive_batch('abc')", "recursive_batch: the tasks must be a list of"),
    ("rlm_worker('')", "the prompt must be a string that is not empty"),
    ("rlm_worker_batched(5)", "the tasks must be a list of prompts"),
    ("rlm_worker_batched(['a'], max_parallel=-1)", "max_parallel must be an integer of at least 1"),
    ("cite(5)", "cite: quote and source must be strings, not int"),
    ("cite('a', 5)", "cite: quote and source must be strings"),
    ("cite('a', source='nowhere')", "there is no source 'nowhere'"),
    ("store.create('', 'd', 'c')", "type must not be empty"),
    (
        "store.create('t', 'd')",
        "TypeError: store.create(type, description, content, backrefs=None, parents=None, tags=None): missing",
    ),
    ("store.create('t', 'd', 'c', colour='red')", "got an unexpected keyword argument 'colour'"),
    (
        "store.search_text()",
        "TypeError: store.search_text(text, limit=50): missing a required argument: 'text'",
    ),
    ("store.create('t', 'd', object())", "content"),
    ("store.create('t', 'd', 'c', parents=['none'])", "none"),
    ("store.create('t', 'd', 'c', backrefs=[SpanRef('context_0', 5, 1)])", "start"),
    (
        "store.create('t', 'd', 'c', backrefs=[SpanRef('nowhere', 0, 1)])",
        "there is no source 'nowhere'",
    ),
    ("store.search('type=\"open')", "column"),
    ("store.search(5)", "query"),
    ("store.get('none')", "none"),
    ("store.llm_map('abc')", "tasks must be a list"),
    ("store.llm_reduce([], 'fold')", "nothing to reduce"),
    ("store.llm_reduce('type=x', '')", "prompt must say what to do"),
    ("SpanRef('a')", "TypeError"),
    ("FINAL_VAR('nothing_of_that_name')", "there is no such variable"),
    ("no_such_function('x')", "NameError"),
    ("store.no_such_method()", "AttributeError"),
]


async def test_invalid_calls_raise_helpful_errors() -> None:
    """Every invalid call raises in the code, says what is wrong, makes no model call and leaves the
    REPL unchanged.
    """
    root = Scripted(
        [code("kept = 42"), *(code(call) for call, _ in BAD_CALLS), code("FINAL(kept)")]
    )
    result = await run(root, max_iterations=len(BAD_CALLS) + 2)
    assert result.answer == "42"
    assert root.asked == []
    for (call, told), execution in zip(BAD_CALLS, result.repl_history[1:], strict=False):
        assert execution.status == "error", call
        assert told in execution.error, call


async def test_wrong_items_fail_in_their_slots_alone() -> None:
    """In batches of every kind, an invalid item is a typed error in its own slot."""
    root = Scripted(
        [
            code(
                "failed = llm_batch([5])[0]",
                "lone = chr(0xd800)",
                "print([type(x).__name__ for x in llm_batch(['a', b'b', ['c'], {}, failed, lone, 'z'])])",
                "print([type(x).__name__ for x in parallel_query('about {chunk}{x}', ['a', None, failed, 'z'])])",
                "tasks = [{'query': 'q', 'context': 'c'}, 5, {}, {'query': 'q', 'context': None}]",
                "print([type(x).__name__ for x in recursive_batch(tasks)])",
                "batch = store.llm_map([{'name': 'n', 'prompt': 'p'}, {'name': 'n'}, 'bare', None])",
                "print([each.type for each in store.children(batch)])",
            ),
            final("1"),
        ]
    )
    result = await run(root)
    assert result.repl_history[0].stdout.splitlines() == [
        "['LLMReply', 'LLMError', 'LLMError', 'LLMError', 'LLMError', 'LLMError', 'LLMReply']",
        "['LLMReply', 'LLMError', 'LLMError', 'LLMReply']",
        "['LLMReply', 'LLMError', 'LLMError', 'LLMError']",
        "['result', 'error', 'result', 'error']",
    ]
    assert sorted(root.asked) == [
        "Question: q\n\nc",
        "a",
        "about a{x}",
        "about z{x}",
        "bare",
        "p",
        "z",
    ]


# Hostile code calls the gate without the REPL's functions.

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "{chunk}",
            "root",
            "context_0",
            "type=x sort=newest",
            "root_000001",
            "q",
            "\ud800",
            "x" * 3_000,
        ]
    )
    | st.builds(
        SpanRef, st.sampled_from(["context_0", "x"]), st.integers(-3, 30), st.integers(-3, 30)
    )
    | st.builds(LLMError, st.just("server"), st.text(max_size=3))
    | st.builds(Opaque, st.text(max_size=3), st.text(max_size=3))
    | st.just(
        StoreObject(
            id="i",
            type="t",
            description="d",
            content=None,
            backrefs=(),
            parents=(),
            tags=(),
            worker="w",
            seq=1,
            ts=0.0,
        )
    )
)
KEYS = st.sampled_from(
    [
        "query",
        "context",
        "prompt",
        "name",
        "store_cards",
        "creates",
        "commit_id",
        "links",
        "id",
        "type",
        "content",
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "prompt",
        "prompts",
        "model",
        "max_concurrent",
        "chunks",
        "template",
        "limit",
        "query",
        "call",
        "self",
        "_call",
        "args",
    ]
)


def gate() -> Gate:
    """The gate of a run over a small document, as a sandbox uses it."""
    corpus = Corpus.build("a small document of thirty characters")
    tree = Tree(RLM(Scripted())._settings, corpus, RunStart(run_id="run"), Emitter())
    host = Host(
        tree,
        corpus,
        query="q",
        depth=0,
        spawn=spawner(tree, 0, corpus),
        worker="root",
        parent="run-1",
    )
    notebook = Notebook(tree.record_room, Quotes())
    return Gate("r", host.functions(), tree, notebook, "run-1")


FUNCTIONS = sorted(spec.name for spec in gate().specs)


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@pytest.mark.parametrize("function", FUNCTIONS)
@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(NAMES, VALUES, max_size=2))
def test_hostile_arguments_return_a_value_or_raise_in_the_code(
    function: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """For any arguments the gate returns a value that can be sent, or raises `HostCallError`; any
    other exception would end the run.
    """
    if function == "store.create":  # an object that the others find too
        kwargs = {}

    async def ask() -> None:
        call = gate()
        await call(1, "store.create", ["note", "d", {"a": [1]}, None, None, ["x"]], {})
        try:
            value = await call(1, function, args, kwargs)
        except HostCallError as error:
            assert str(error)
        else:
            Encoder().encode({"op": "answer", "value": value}, lambda _frame: None)

    asyncio.run(ask())
