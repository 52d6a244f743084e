"""The host function that reads texts of large folders when code asks for them."""

from typing import Any, Final

from rlm_integrations.corpus.lazy import LazyCorpus
from rlm_integrations.engine.gate import Function, HostCall
from rlm_integrations.engine.threads import TreeThreads
from rlm_integrations.records import HostFunction
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.sandbox.host_texts import BATCH, READ_TEXTS
from rlm_integrations.sandbox.literals import MAX_WORDS, WORD_CHARS

_SPEC: Final = HostFunction(READ_TEXTS, "(runs, literals, ignores_case)", "")


def text_function(corpus: LazyCorpus, threads: TreeThreads) -> Function:
    """The function that reads texts of this document."""

    async def read_texts(_: HostCall, runs: Any, literals: Any, ignores_case: Any) -> list[Any]:
        is_valid = (
            _are_runs(runs)
            and (literals is None or _are_literals(literals))
            and type(ignores_case) is bool
        )
        if not is_valid:
            raise HostCallError(f"{READ_TEXTS}: invalid arguments", type="TypeError")
        return list(await threads.free(corpus.texts, runs, literals, ignores_case))

    # A replay reads again: the journal does not keep texts
    return Function(_SPEC, read_texts, asks_models=True)


def _are_runs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= BATCH
        and all(
            isinstance(each, list)
            and [type(number) for number in each] == [int, int]
            and 0 <= each[1] - each[0] <= BATCH
            for each in value
        )
        and sum(each[1] - each[0] for each in value) <= BATCH
    )


def _are_literals(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_WORDS
        and all(isinstance(each, str) and 0 < len(each) <= WORD_CHARS for each in value)
    )
