"""What the root is told about its functions, their limits, and its turns."""

import asyncio
import json

import pytest

from rlm_integrations import RLM
from rlm_integrations.engine import catalog
from rlm_integrations.records import Request
from tests.engine.conftest import Scripted, code, final, run

BATCHES = {
    "llm_batch": "llm_batch(list('abcdefgh')*4)",
    "parallel_query": "parallel_query('{chunk}', list('abcdefgh')*4)",
    "parallel_query by its first names": "parallel_query(prompt_template='{chunk}', context_chunks=list('abcdefgh')*4)",
    "rlm_worker_batched": "rlm_worker_batched(['explore ' + each for each in list('abcdefgh')*4])",
    "recursive_batch": "recursive_batch([{'query': each, 'context': 'c'} for each in list('abcdefgh')*4])",
    "rlm_query_batched": "rlm_query_batched(list('abcdefgh')*4)",
    "store.llm_map": "store.llm_map([{'name': each, 'prompt': each} for each in list('abcdefgh')*4])",
}


class Gathering:
    """Answers when the expected number of calls is in flight."""

    def __init__(self, width: int) -> None:
        self.width, self.most, self.open, self.full = width, 0, 0, asyncio.Event()

    async def __call__(self, _request: Request) -> str:
        self.open += 1
        self.most = max(self.most, self.open)
        if self.open == self.width:
            self.full.set()
        await asyncio.wait_for(self.full.wait(), 20)
        self.open -= 1
        return '{"creates": []}'


@pytest.mark.parametrize("batch", BATCHES)
async def test_the_default_concurrency_of_a_batch(batch: str) -> None:
    """Without an explicit width, a batch uses `max_parallel_calls`."""
    for width in (20, 3):
        answers = Gathering(width)
        root = Scripted([code(f"r = {BATCHES[batch]}"), final("1")], answers)
        result = await run(root, max_parallel_calls=width)
        assert (result.answer, answers.most) == ("1", width)


async def test_the_prompt_has_the_limit_of_parallel_calls() -> None:
    """The prompt has the limit of parallel calls."""
    root = Scripted([final("1")])
    await run(root, max_parallel_calls=17)
    assert "ask many, 17 at once" in root.requests[0].messages[0].content


async def test_the_seeds_own_parameter_names_work() -> None:
    """`parallel_query(prompt_template=…, context_chunks=…)` works, as do template and chunks."""
    root = Scripted(
        [code("FINAL(parallel_query(prompt_template='sum up {chunk}', context_chunks=['a', 'b']))")]
    )
    assert (await run(root)).answer == '["re: sum up a", "re: sum up b"]'


async def test_help_of_every_function() -> None:
    """`help` of host functions, store methods and tools has the real signature, at least one line
    of description, and no internal name.
    """

    def lookup(key: str, *, most: int = 3) -> list[str]:
        """Look a key up in the register."""
        return [key] * most

    specs = [*catalog.FUNCTIONS, *catalog.STORE_FUNCTIONS, *catalog.STORE_METHODS]
    names = [name for spec in specs for name in (spec.name, *spec.aliases)]
    show = f"import inspect\nFINAL([[str(inspect.signature(f)), f.__doc__] for f in [{', '.join(names)}, lookup]])"
    shown = json.loads((await run(Scripted([code(show)]), tools=[lookup])).answer)
    for name, (signature, doc) in zip([*names, "lookup"], shown, strict=True):
        assert "args" not in signature, name
        assert signature in doc, name
        assert len(doc.split("\n\n", 1)[1].split()) >= 4, name
        assert not any(
            ours in signature + doc
            for ours in ("Proxy", "Reading", "rlm_integrations", "InputError")
        ), name
    assert (
        dict(zip(names, shown, strict=False))["store.create"][0]
        == "(type, description, content, backrefs=None, parents=None, tags=None)"
    )
    assert (
        shown[-1][0] == "(key: 'str', *, most: 'int' = 3) -> 'list[str]'"
        or shown[-1][0] == "(key: str, *, most: int = 3) -> list[str]"
    )


async def test_errors_to_the_model_name_no_internal_class() -> None:
    """The error of a wrong call of a store method has the signature that the model knows."""
    root = Scripted(
        [
            code("store.create('note', 'd')"),
            code("store.search_text()"),
            code("store.view(5, 6, 7)"),
            final("1"),
        ]
    )
    await run(root)
    assert (
        "TypeError: store.create(type, description, content, backrefs=None, parents=None, tags=None): missing"
        in root.told[1]
    )
    assert (
        "TypeError: store.search_text(text, limit=50): missing a required argument: 'text'"
        in root.told[2]
    )
    assert (
        "TypeError: store.view(query='', limit=50): too many positional arguments" in root.told[3]
    )
    assert not any(
        ours in told
        for told in root.told
        for ours in ("WorkerStoreProxy", "Reading", "Host.", "Repl")
    )


async def test_the_root_is_told_how_many_turns_it_has() -> None:
    """The number of turns is in the question, and again when few are left; for a child too."""
    root = Scripted([code(f"print({n})") for n in range(5)] + [final("1")])
    await run(root, max_iterations=6)
    assert "You have 6 turns: each of your replies is one." in root.told[0]
    assert ["turns are left" in told or "One turn is left" in told for told in root.told] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    assert root.told[4].endswith("2 turns are left.")
    assert root.told[5].endswith("One turn is left: finish in it.")


async def test_every_question_of_a_session_has_its_turns() -> None:
    """The turns are counted per question."""
    root = Scripted([code("x = 1"), final("x"), code("y = 2"), final("y")])
    async with RLM(root, max_iterations=8).session("a document") as chat:
        await chat.acompletion("First?")
        assert (await chat.acompletion("Second?")).answer == "2"
    assert root.told[2].endswith("You have 8 turns: each of your replies is one.")


async def test_workers_at_the_limit_of_depth_invent_nothing() -> None:
    """The prompt does not mention workers there; if one is called, the sub-model is told that it
    has no document.
    """
    root = Scripted(
        [code("FINAL(rlm_worker('Find the code word')['creates'])")], lambda _: '{"creates": []}'
    )
    await run(root, "The code word is XYZZY.")
    assert "worker" not in root.requests[0].messages[0].content
    assert "You see this message alone and no document" in root.asked[0]
    assert "FINAL" not in root.asked[0]
    deep = Scripted(
        {
            "What": [code("FINAL(rlm_worker('Find the code word')['creates'])")],
            "Find": [final("{'creates': []}")],
        }
    )
    await run(deep, "The code word is XYZZY.", max_depth=2)
    assert "rlm_worker(prompt, store_cards=None)" in deep.requests[0].messages[0].content


async def test_the_prompt_says_how_to_read_the_results_of_llm_map() -> None:
    """The prompt's description is correct: children are in the order of the tasks, with name and
    reply.
    """
    show = "batch = store.llm_map([{'name': f'n{i}', 'prompt': f'p{i}'} for i in range(5)])"
    root = Scripted(
        [code(show, "FINAL([[each.description, each.content] for each in store.children(batch)])")]
    )
    result = await run(root, store_mode="shared")
    assert json.loads(result.answer) == [[f"n{i}", f"re: p{i}"] for i in range(5)]
    assert "`store.children(batch id)`" in root.requests[0].messages[0].content
