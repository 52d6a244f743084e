"""`output_type`: the schema is in the prompt, an invalid answer is sent back, a valid one is an
instance of the type.
"""

import json
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlm_integrations import RLM
from rlm_integrations.errors import InputError
from tests.engine.conftest import Scripted, code, final, run


class Treaty(BaseModel):
    name: str
    signed: date
    parties: list[str] = Field(min_length=2)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    signed: date
    pair: tuple[int, int]


@dataclass
class Place:
    name: str
    people: int


class Colour(Enum):
    RED = "red"


TREATY = "{'name': 'Arras', 'signed': '1500-01-02', 'parties': ['A', 'B']}"


@pytest.mark.parametrize(
    ("output_type", "expression", "expected"),
    [
        (int, "41 + 1", 42),
        (int, "'42'", 42),
        (bool, "True", True),
        (str, "'as it is'", "as it is"),
        (str, "[1, 2]", "[1, 2]"),
        (float | None, "None", None),
        (list[int], "[1, '2']", [1, 2]),
        (list[int], "'[1, 2]'", [1, 2]),
        (dict[str, int], "{'a': 1}", {"a": 1}),
        (Literal["yes", "no"], "'yes'", "yes"),
        (Annotated[int, Field(gt=10)], "11", 11),
        (Colour, "'red'", Colour.RED),
        (Place, "{'name': 'Ulm', 'people': 5}", Place("Ulm", 5)),
        (Treaty, TREATY, Treaty(name="Arras", signed=date(1500, 1, 2), parties=["A", "B"])),
        (
            Treaty,
            f"__import__('json').dumps({TREATY})",
            Treaty(name="Arras", signed=date(1500, 1, 2), parties=["A", "B"]),
        ),
        (
            Strict,
            "{'signed': '1500-01-02', 'pair': (1, 2)}",
            Strict(signed=date(1500, 1, 2), pair=(1, 2)),
        ),
        (
            list[Treaty],
            f"[{TREATY}]",
            [Treaty(name="Arras", signed=date(1500, 1, 2), parties=["A", "B"])],
        ),
    ],
)
async def test_any_type_that_pydantic_validates(
    output_type: Any, expression: str, expected: Any
) -> None:
    """The argument of FINAL becomes an instance of the type, from a value of the REPL or from
    JSON.
    """
    result = await run(Scripted([final(expression)]), output_type=output_type)
    assert (result.answer, type(result.answer), result.stop_reason) == (
        expected,
        type(expected),
        "final",
    )


async def test_the_schema_is_in_the_prompt() -> None:
    """The prompt describes the type, field by field."""
    root = Scripted([final(TREATY)])
    await run(root, output_type=Treaty)
    assert (
        json.dumps(Treaty.model_json_schema(), ensure_ascii=False)
        in root.requests[0].messages[0].content
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("{'name': 'Arras', 'signed': 'never', 'parties': ['A', 'B']}", "signed: "),
        (
            "{'name': 'Arras', 'signed': '1500-01-02', 'parties': ['A']}",
            "parties: List should have at least 2 items",
        ),
        ("'It was signed in Arras.'", "value: "),
        ('\'{"name": "Arras"}\'', "signed: Field required"),
        ("None", "value: "),
        ("object()", "value: "),
        ("[cite('small')]", "value: "),
    ],
)
async def test_errors_go_back_to_the_model(wrong: str, told: str) -> None:
    """Each validation error names its field, and the next answer may be valid, from prose or from
    code.
    """
    root = Scripted([final(wrong), f"FINAL({wrong})", final(TREATY)])
    result = await run(root, output_type=Treaty)
    assert (result.answer.name, result.iterations) == ("Arras", 3)
    assert all("does not fit the schema" in each and told in each for each in root.told[1:])
    assert "does not fit the schema" in result.trajectory[0].note


class Checked(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def check(cls, value: int) -> int:
        if value < 0:
            raise KeyError("nothing below zero")
        return value


async def test_a_validator_that_raises_anything_is_an_answer_that_does_not_fit() -> None:
    """Any exception of a user's validator is a validation error, and does not end the run."""
    root = Scripted([final("{'value': -1}"), final("{'value': 1}")])
    assert (await run(root, output_type=Checked)).answer == Checked(value=1)
    assert "KeyError: 'nothing below zero'" in root.told[1]


async def test_a_typed_final_in_prose() -> None:
    """A final outside code is validated too."""
    assert (await run(Scripted([code("x = 6"), "FINAL(x * 7)"]), output_type=int)).answer == 42


@pytest.mark.parametrize("output_type", [5, object(), "Missing"])
def test_an_invalid_type_is_refused_at_once(output_type: Any) -> None:
    """An `output_type` that is not a type is an error before any call."""
    with pytest.raises(InputError, match="is not a type that pydantic validates"):
        RLM("offline", output_type=output_type)


async def test_children_of_a_typed_run_answer_in_text() -> None:
    """The type applies only to the root's answer."""
    root = Scripted(
        {
            "root?": [code("r = recursive_lm('child?', context)", "FINAL(int(r))")],
            "child?": [final("'42'")],
        }
    )
    assert (await run(root, question="root?", output_type=int, max_depth=2)).answer == 42
