"""What replaces the constructor options of the original designs and of other libraries."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from rlm_integrations.errors import InputError

P = ParamSpec("P")

_MODEL = (
    'the models first, as in RLM("gpt-5", "gpt-5-mini"): names, OpenAILM(…), or objects of '
    "LangChain or LlamaIndex"
)
_BUDGET = "budget=Budget(max_cost=…, max_tokens=…, max_seconds=…, max_calls=…)"
INSTEAD = {
    **dict.fromkeys("backend backend_kwargs llm model model_name".split(), _MODEL),
    **dict.fromkeys(
        "other_backends other_backend_kwargs recursive_model sub_lm sub_model".split(),
        "the second argument, sub_llm=",
    ),
    **dict.fromkeys(
        "environment environment_kwargs interpreter".split(), 'sandbox="process", the default'
    ),
    **dict.fromkeys(
        "max_budget max_cost max_tokens max_timeout max_seconds max_calls max_llm_calls".split(),
        _BUDGET,
    ),
    "max_concurrent": "max_parallel_calls=",
    "persistent": "rlm.session(context)",
    "custom_tools": "tools=[function, …]",
    "signature": "output_type=",
    **dict.fromkeys(
        "logger on_iteration_start on_iteration_complete".split(),
        "on_event=, rlm.stream(…) or result.save(path)",
    ),
    "compaction": "limits=Limits(compact_at=…); compaction is always on",
    "prompt_mode": "nothing: there is one prompt",
}


def suggest_replacements(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate a constructor: an option of another library raises an error with the option here."""

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        foreign = [name for name in kwargs if name in INSTEAD]
        if foreign:
            by_advice = {
                advice: [f"{name}=" for name in foreign if INSTEAD[name] == advice]
                for advice in map(INSTEAD.get, foreign)
            }
            messages = [
                f"no {' or '.join(names)}: write {advice}" for advice, names in by_advice.items()
            ]
            raise InputError(f"RLM takes {'; '.join(messages)}")
        init(*args, **kwargs)

    return checked
