"""Names of the original documents work, or the error says what to write instead."""

import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, Budget, InputError, OpenAILM
from rlm_integrations.engine._originals import INSTEAD
from tests.engine.conftest import Scripted, code, run
from tests.standin import serve_in_thread

README = Path(__file__).parents[2] / "rlm_integrations/engine/README.md"


@pytest.mark.parametrize("name", INSTEAD)
def test_an_option_of_the_originals_says_what_to_write_instead(name: str) -> None:
    """The error names the option and its replacement, and no other."""
    options: dict[str, Any] = {name: "x"}
    with pytest.raises(InputError, match=f"RLM takes no {name}=: write {re.escape(INSTEAD[name])}"):
        RLM(**options)
    assert name not in inspect.signature(RLM).parameters


def test_the_original_constructor_names_all_that_is_wrong() -> None:
    """`RLM(backend="vllm", backend_kwargs={…})` reports both options; a name of no design is a
    plain TypeError.
    """
    options: dict[str, Any] = {
        "backend": "vllm",
        "backend_kwargs": {"model_name": "m"},
        "persistent": True,
    }
    with pytest.raises(
        InputError,
        match=r"RLM takes no backend= or backend_kwargs=: write the models first.*; no persistent=: write rlm\.session",
    ):
        RLM(**options)
    unknown: dict[str, Any] = {"colour": "red"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        RLM("offline", **unknown)


def test_the_readme_has_a_row_for_each_original_option() -> None:
    """Its last table has every option that the constructor explains."""
    table = (
        README.read_text(encoding="utf-8")
        .partition("## If you come from another library")[2]
        .partition("\n## ")[0]
    )
    assert [name for name in INSTEAD if f"{name}=" not in table] == []


def test_an_rlm_can_be_pickled_and_copied() -> None:
    """A pickle has the options and the models as they were given, without keys; a copy is the RLM
    itself, whose clients are shared.
    """
    rlm = RLM(
        OpenAILM("root", base_url="http://127.0.0.1:1/v1", api_key="sk-secret"),
        "offline",
        max_depth=2,
        budget=Budget(max_calls=5),
    )
    assert copy.copy(rlm) is copy.deepcopy(rlm) is rlm
    data = pickle.dumps(rlm)
    assert b"sk-secret" not in data
    again = pickle.loads(data)
    assert repr(again) == repr(rlm) == "<RLM: root 'root', sub-models offline='offline'>"
    assert {**again.options, "root_llm": 0, "sub_llm": 0} == {
        **rlm.options,
        "root_llm": 0,
        "sub_llm": 0,
    }
    assert (
        pickle.loads(pickle.dumps(RLM("offline")))
        .completion("What is it?", "It is a dam.")
        .stop_reason
        == "final"
    )
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(RLM("offline", on_event=lambda _event: None))


async def test_children_of_llm_map_follow_the_tasks() -> None:
    """The original's own loop over `store.children(batch_id)` reads results in the order of the
    tasks, whatever their order of arrival.
    """
    import asyncio

    order = {"p0": 2, "p1": 1, "p2": 0}
    turn = asyncio.Condition()
    done: list[str] = []

    async def answer(request: Any) -> str:
        prompt = request.messages[-1].content
        async with turn:
            await turn.wait_for(lambda: len(done) == order[prompt])
            done.append(prompt)
            turn.notify_all()
        return f"reply to {prompt}"

    script = [
        code(
            "batch_id = store.llm_map(tasks=[{'name': f't{i}', 'prompt': f'p{i}'} for i in range(3)])",
            "results = store.children(batch_id)",
            "FINAL([[r.description, r.content] for r in results])",
        )
    ]
    result = await run(Scripted(script, answer), output_type=list[list[str]])
    assert done == ["p2", "p1", "p0"]
    assert result.answer == [[f"t{i}", f"reply to p{i}"] for i in range(3)]


def test_a_model_is_asked_one_prompt() -> None:
    """`llm.query("prompt")`, as in the originals, works over a real connection."""
    with serve_in_thread() as provider:
        llm = OpenAILM("m", base_url=provider.base_url, api_key="k")
        assert llm.query("prompt").startswith("answer ")
        assert provider.stats().calls == 1
