"""The options of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_integrations.engine.run_storage import RunStorage
from rlm_integrations.engine.tools import Tool
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.records import Budget, Limits
from rlm_integrations.sandbox.base import Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a run with their defaults filled in; see `RLM`."""

    root: LM
    subs: Mapping[str, LM]
    max_iterations: int
    max_depth: int
    max_parallel_calls: int
    store_mode: str
    budget: Budget
    limits: Limits
    retry: Retry
    output_type: Any
    sandbox: Sandbox
    tools: Sequence[Tool]
    storage: RunStorage | None

    @property
    def sub(self) -> LM:
        """The default model of code."""
        return next(iter(self.subs.values()))
