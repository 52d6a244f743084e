"""Detects replies that repeat the previous one."""

import re
from collections.abc import Sequence

from rlm_integrations.engine import prompts
from rlm_integrations.trajectory import Execution, Iteration

MAX_REPEATS = 5  # a run ends after so many identical replies
_BLOCK = re.compile(r"<block-\d+>")


def repetition_note(turns: Sequence[Iteration], reply: str, executions: Sequence[Execution]) -> str:
    """The note about a reply that is the same as the previous one; otherwise ""."""
    if not turns or turns[-1].reply != reply:
        return ""
    before, now = (
        [(each.output, _BLOCK.sub("", each.error or "")) for each in done]
        for done in (turns[-1].executions, executions)
    )
    return prompts.repeated(same_result=before == now)


def is_stuck(turns: Sequence[Iteration]) -> bool:
    """Whether the last replies were all the same."""
    return len(turns) >= MAX_REPEATS and all(
        turn.reply == turns[-1].reply for turn in turns[-MAX_REPEATS:]
    )
