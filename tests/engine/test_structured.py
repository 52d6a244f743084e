"""Roots that answer in a JSON schema: `RLM(structured=True)`."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from rlm_integrations import RLM, InputError, Limits, ModelError, OpenAILM, Prompt
from rlm_integrations.engine.parsing import SCHEMA, parse_structured
from rlm_integrations.engine.prompts import STRUCTURED, shorten_fields
from rlm_integrations.events import RunFinished, TurnFinished
from rlm_integrations.records import Request
from rlm_integrations.storage import Storage
from tests.engine.conftest import Scripted, run
from tests.lm._foreign import CLAUDE, GEMINI, MODEL, PROVIDERS, foreign, needs_llama_index
from tests.standin import Ask, Fault, Reply, serve_in_thread


def turn(code: str | None = None, final: Any = None, reasoning: str = "I think.") -> str:
    """A reply of a root."""
    return json.dumps({"reasoning": reasoning, "code": code, "final": final}, ensure_ascii=False)


class Structured(Scripted):
    """A scripted root that can answer in a schema."""

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        assert schema == SCHEMA


@pytest.mark.parametrize(
    ("text", "codes", "final", "notes"),
    [
        (turn("x = 1\nprint('```')"), ["x = 1\nprint('```')"], None, []),
        (turn("```python\nx = 1\n```"), ["x = 1"], None, []),
        (turn("if x"), [], None, ["not_python"]),
        (turn("", "Paris"), [], ("value", "Paris"), []),
        (turn(None, "FINAL('Paris')"), [], ("value", "Paris"), []),
        (turn(None, "FINAL_VAR(x)"), [], ("variable", "x"), []),
        (turn("x = 1", "FINAL_VAR(x)"), ["x = 1"], ("variable", "x"), []),
        (turn("x = 1", "Paris"), ["x = 1"], None, ["final_beside_code"]),
        (turn("if x", "FINAL_VAR(x)"), [], None, ["not_python", "final_refused"]),
        (turn(None, {"n": [1, None]}), [], ("value", '{"n": [1, null]}'), []),
        (turn(), [], None, []),
        (turn(5, ""), [], None, []),  # type: ignore[arg-type]
        ("Here: " + turn("x = 1") + " and so on", ["x = 1"], None, []),
        ('{"reasoning": "two\nlines", "code": "x = 1", "final": null}', ["x = 1"], None, []),
        (turn("x = 1")[:-20], [], None, ["no_object"]),
        ('{"code": NaN}', [], None, ["no_object"]),
        ('{"other": 1}', [], None, ["no_object"]),
        ("[" * 100_000 + "{" * 100_000, [], None, ["no_object"]),
        ('{"code": ' * 50_000, [], None, ["no_object"]),
        ("words alone", [], None, ["no_object"]),
        ("```repl\nx = 1\n```", ["x = 1"], None, []),
        ("FINAL(42)", [], ("value", "42"), []),
    ],
)
def test_a_reply_is_read(
    text: str, codes: list[str], final: tuple[str, str] | None, notes: list[str]
) -> None:
    """Code runs, an answer counts if no code is beside it, and what is neither is told; a reply in
    another form is read as in prose.
    """
    reply = parse_structured(text)
    assert [block.code for block in reply.blocks if block.note is None] == codes
    assert (reply.final and (reply.final.kind, reply.final.text)) == final
    assert [note.kind for note in reply.notes] == notes


async def test_a_run_in_a_schema() -> None:
    """Each request of a root has the schema, and its prompt the form; code, answers and evidence
    work as in blocks; requests of code have no schema.
    """
    root = Structured(
        [
            turn("x = llm_query('sum up')\nprint(x)"),
            turn("y = 1", "too early"),
            turn(None, None, "I hesitate."),
            turn("FINAL('it is small [1]', evidence=[cite('a small')])"),
        ]
    )
    result = await run(root, "a small document", structured=True)
    assert (result.answer, result.stop_reason) == ("it is small [1]", "final")
    assert [citation.quote for citation in result.citations] == ["a small"]
    assert [each.schema for each in root.requests if each.role == "root"] == [SCHEMA] * 4
    assert [each.schema for each in root.requests if each.role == "sub"] == [None]
    system = root.requests[0].messages[0].content
    assert "Answer with one JSON object" in system
    (example,) = parse_structured(STRUCTURED).blocks
    assert example.code.startswith("print(type(context), len(context))\n")
    assert "Write code in a fenced block" not in system
    assert "re: sum up" in root.told[1]
    assert "Your `final` was not taken" in root.told[2]
    assert "Put Python into `code`" in root.told[3]
    assert result.options["structured"] is True


async def test_an_answer_in_a_field() -> None:
    """`final` is the answer word for word, even if it is the name of a variable; a typed one is
    validated.
    """
    plain = await run(Structured([turn("x = 5\nprint(x)"), turn(None, "x")]), structured=True)
    assert plain.answer == "x"
    root = Structured([turn(None, "five"), turn(None, "5")])
    typed = await run(root, structured=True, output_type=int)
    assert typed.answer == 5
    assert "does not fit the schema" in root.told[1]


async def test_the_last_turn_of_a_schema() -> None:
    """The closing request names the fields; an answer beside code then counts, and without one the
    words of the root are the partial answer.
    """
    root = Structured([turn("print(1)"), turn("z = 2", "best")])
    result = await run(root, structured=True, max_iterations=1)
    assert (result.answer, result.stop_reason) == ("best", "max_iterations")
    assert "in `final`, or by `code` that only calls FINAL" in root.told[1]
    silent = Structured([turn("print(1)"), turn(None, None, "It may be Paris.")])
    partial = await run(silent, structured=True, max_iterations=1)
    assert partial.partial == "It may be Paris."


async def test_streams_have_the_turns_of_a_schema() -> None:
    """A stream yields each turn with the object as its reply, and the result."""
    script = [turn("print(1)"), turn(None, "done")]
    events = RLM(Structured(script), structured=True).astream("What?", "a document")
    seen = [event async for event in events]
    replies = [event.turn.reply for event in seen if isinstance(event, TurnFinished)]
    assert replies == script
    assert isinstance(seen[-1], RunFinished)
    assert seen[-1].result.answer == "done"


async def test_shortened_replies_are_objects() -> None:
    """A compaction shortens the fields of old replies: each stays a JSON object in the history."""
    long = [turn(f"print({n})", None, "words " * 400) for n in range(30)]
    root = Structured([*long, turn(None, "done")])
    result = await run(root, structured=True, max_iterations=40, limits=Limits(window=8_000))
    assert result.answer == "done"
    said = [each for each in root.requests[-1].messages if each.role == "assistant"]
    assert all(json.loads(each.content).keys() == set(SCHEMA["required"]) for each in said)
    assert len(said[0].content) < 500 < len(said[-1].content)
    assert shorten_fields(long[0], 10_000) == long[0]
    assert shorten_fields("no object" * 100, 20).startswith("no object")


async def test_a_stored_run_of_a_schema_goes_on(tmp_path: Path) -> None:
    """An interrupted run has its partial result in the storage, and is resumed from its journal
    without asking again; not as a run in another form.
    """

    class Fails(Structured):
        fails = True
        so_far: Any = None

        async def complete(self, request: Request) -> Any:
            if self.fails and request.role == "root" and len(request.messages) > 4:
                self.so_far = await asyncio.to_thread(storage.run, "mine")
                raise ModelError("no quota", type="quota")
            return await super().complete(request)

    root = Fails(
        [turn("x = llm_query('p')\nprint(x)"), turn(None, None, "Half."), turn(None, "done")]
    )
    with Storage(tmp_path / "runs") as storage:
        rlm = RLM(root, structured=True, storage=storage)
        failed = await rlm.acompletion("What?", "a document", run_id="mine")
        assert (failed.stop_reason, len(root.requests)) == ("model_error", 3)
        assert (root.so_far.stop_reason, root.so_far.partial) == ("running", "Half.")
        assert [each.reply for each in root.so_far.trajectory] == root._script[:2]
        root.fails = False
        with pytest.raises(InputError, match="its structured is True, not False"):
            await rlm.replace(structured=False).aresume("mine")
        result = await rlm.aresume("mine")
    assert (result.answer, len(root.requests)) == ("done", 4)
    assert [each.reply for each in result.trajectory] == root._script


# Models.


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: "offline", "'offline' does not say that it can: OfflineLM has no method"),
        (Scripted, "Scripted has no method check_structured"),
        (
            lambda: GenericFakeChatModel(messages=iter([AIMessage("x")])),
            "a GenericFakeChatModel has none",
        ),
        (
            lambda: RunnableLambda(lambda _: AIMessage("x")),
            "needs a chat model, not a RunnableLambda",
        ),
    ],
)
def test_a_model_without_a_schema_is_refused(model: Any, why: str) -> None:
    """A root that cannot answer in a schema is an error before any call, also with a prompt that
    hides the form.
    """
    with pytest.raises(InputError, match=why):
        RLM(model(), structured=True)
    with pytest.raises(InputError, match="structured='yes': choose True or False"):
        RLM(model(), structured="yes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the field \$form, because of structured="):
        RLM(Structured(), structured=True, prompt=Prompt(system="context FINAL"))


@needs_llama_index
def test_a_model_of_llama_index_without_a_schema_is_refused() -> None:
    """An LLM with neither a format nor tools is an error, too."""
    from llama_index.core.llms import MockLLM

    with pytest.raises(InputError, match="MockLLM has neither"):
        RLM(MockLLM(), structured=True)


OBJECTS = [
    {"reasoning": "I look.", "code": "print(len(context))", "final": None},
    {"reasoning": "I know.", "code": None, "final": "done"},
]


def in_text(ask: Ask) -> Reply:
    return Reply(json.dumps(OBJECTS[ask.turn]))


def in_tool(ask: Ask) -> Reply:
    return Reply("I call it.", "tool_calls", tool_calls=[("turn", OBJECTS[ask.turn])])


def openai_schema(body: Any) -> Any:
    return body["response_format"]["json_schema"]["schema"]


def tool_schema(body: Any) -> Any:
    (tool,) = body["tools"]
    assert body["tool_choice"] != {"type": "auto"}
    return tool["input_schema"]


def google_schema(body: Any) -> Any:
    config = body.get("generationConfig", {})
    if "tools" in body:
        (tool,) = body["tools"]
        return tool["functionDeclarations"][0]["parameters"]
    assert config["responseMimeType"] == "application/json"
    return config["responseJsonSchema"]


@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "reply", "schema_in"),
    [
        ("OpenAILM", in_text, openai_schema),
        ("ChatOpenAI", in_text, openai_schema),
        pytest.param("OpenAILike", in_text, openai_schema, marks=needs_llama_index),
        ("ChatAnthropic", in_tool, tool_schema),
        ("ChatGoogleGenerativeAI", in_text, google_schema),
        pytest.param("Anthropic", in_tool, tool_schema, marks=PROVIDERS[2].marks),
        pytest.param("GoogleGenAI", in_tool, google_schema, marks=needs_llama_index),
    ],
)
def test_models_are_asked_for_the_schema(kind: str, reply: Any, schema_in: Any, api: str) -> None:
    """Every kind of model gets the schema in each turn, in its provider's way; its tokens are
    counted.
    """
    scripts = dict.fromkeys((MODEL, CLAUDE, GEMINI), reply)
    with serve_in_thread(scripts=scripts, keep_requests=True) as server:
        model = (
            OpenAILM(MODEL, base_url=server.base_url)
            if kind == "OpenAILM"
            else foreign(kind, server.base_url, max_retries=0)
        )
        rlm = RLM(model, structured=True)
        asked = ("What?", "a document")
        is_sync = api == "sync"
        result = rlm.completion(*asked) if is_sync else asyncio.run(rlm.acompletion(*asked))
        assert (result.answer, result.iterations) == ("done", 2)
        assert [json.loads(each.reply) for each in result.trajectory] == OBJECTS
        assert next(iter(result.usage.values())).input_tokens > 0
        for kept in server.requests():
            schema = schema_in(kept.body)
            assert set(schema["properties"]) == set(SCHEMA["required"])
            assert set(schema["required"]) == set(SCHEMA["required"])


async def test_a_server_that_refuses_the_schema() -> None:
    """If the provider refuses the request, the error says what that may mean."""
    with serve_in_thread(faults=[Fault("bad_request")]) as server:
        root = OpenAILM("m", base_url=server.base_url)
        with pytest.raises(ModelError, match="leave out structured=True") as caught:
            await RLM(root, structured=True).acompletion("What?", "a document")
    assert caught.value.type == "bad_request"


async def test_fallbacks_and_bindings_answer_in_a_schema() -> None:
    """Models that are bound, and fallbacks, are each asked in the schema."""
    with serve_in_thread(scripts={MODEL: in_text}, keep_requests=True) as server:
        broken = foreign("ChatOpenAI", "http://127.0.0.1:9/v1", max_retries=0)
        works = foreign("ChatOpenAI", server.base_url, max_retries=0)
        model = broken.with_fallbacks([works.bind(seed=7)]).with_config(tags=["mine"])
        result = await RLM(model, structured=True).acompletion("What?", "a document")
        assert result.answer == "done"
        assert [kept.body["seed"] for kept in server.requests()] == [7, 7]
        assert all("response_format" in kept.body for kept in server.requests())
