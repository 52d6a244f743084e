"""The models and the RLM of a job, from the names and options that are stored with it."""

from collections.abc import Mapping
from typing import Any

from rlm_integrations._json import read_record
from rlm_integrations.engine.prompts import Prompt
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import InputError, quote_value
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.providers import is_foreign
from rlm_integrations.records import Budget, Completion, Limits, Request
from rlm_integrations.run_setup import ModelNames
from rlm_integrations.storage import Manifest

_OFFLINE = "offline"
_RECORDS = {"budget": Budget, "limits": Limits, "retry": Retry, "prompt": Prompt | None}
_PLAIN = (
    "max_iterations",
    "max_depth",
    "max_parallel_calls",
    "store_mode",
    "instructions",
    "structured",
    "on_incomplete",
    "require_coverage",
)
# Objects of the submitting program, which no name brings back
_OF_WORKER = ("tools", "output_type", "store")


class JobModel:
    """A model that is only named here, and asked by a worker, which has its key."""

    context_window: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("openai:")
        if "@" in name or not self.name.strip() or is_foreign(self.name):
            raise InputError(
                "a job's model is a name at the address that its worker has, such as 'gpt-5-mini', "
                f"or 'offline'; not {name!r}"
            )

    def cache_identity(self, request: Request) -> str:  # noqa: ARG002 - the protocol of caches
        """Its name: a cache is the worker's."""
        return self.name

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        """Nothing: the worker's model is checked."""

    async def complete(self, request: Request) -> Completion:
        """Never called: a job is only submitted."""
        raise NotImplementedError


def provider_of(lm: LM) -> str | None:
    """Whose API a model uses, if that is known."""
    if isinstance(lm, JobModel):
        return None if lm.name == _OFFLINE else "openai"
    return "openai" if type(lm).__module__.startswith("rlm_integrations.lm.openai") else None


class ModelsByName:
    """Builds RLMs from names of models, at OpenAI or at one address.

    What is stored chooses neither the address nor the sandbox: who can write to the storage could
    have this machine's key sent away, or run code on it.

    Args:
        base_url: The address of an API like OpenAI's; by default OpenAI or OPENAI_BASE_URL.
        sandbox: Where model code runs.
    """

    def __init__(self, base_url: str | None = None, sandbox: str = "process") -> None:
        self._base_url = base_url
        self._sandbox = sandbox
        self._models: dict[str, LM] = {}

    def rlm(self, models: ModelNames, options: Mapping[str, Any]) -> RLM[Any]:
        """An RLM with these models and stored options.

        Raises:
            InputError: A model cannot be built, or an option is unknown or invalid.
        """
        for name in _OF_WORKER:
            if options.get(name):
                raise InputError(
                    f"it has the {name} {options[name]!r}: only a Worker with an RLM that has them "
                    "can do it"
                )
        subs = {name: self._model(model) for name, model in models.subs.items()}
        return RLM(
            self._model(models.root), subs or None, sandbox=self._sandbox, **stored_options(options)
        )

    def _model(self, name: str) -> LM:
        if name not in self._models:
            self._models[name] = self._build(name)
        return self._models[name]

    def _build(self, name: str) -> LM:
        if name == _OFFLINE:
            from rlm_integrations.lm.offline import OfflineLM

            return OfflineLM()
        from rlm_integrations.lm.openai import OpenAILM

        return OpenAILM(name, base_url=self._base_url)


def stored_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an RLM from their stored form.

    Raises:
        InputError: One is unknown or invalid.
    """
    if unknown := options.keys() - {*_PLAIN, *_RECORDS, *_OF_WORKER, "cache", "sandbox"}:
        raise InputError(
            f"it has the option {quote_value(min(unknown))}, which this version does not have"
        )
    try:
        found = {name: options[name] for name in _PLAIN if name in options}
        for name, kind in _RECORDS.items():
            if name in options:
                found[name] = read_record(kind, options[name], name)
    except TypeError as error:
        raise InputError(f"its options are invalid: {error}") from error
    return found


def models_of(manifest: Manifest) -> ModelNames:
    """The models of a job.

    Raises:
        InputError: It names none.
    """
    if not manifest.llm_model:
        raise InputError("its manifest names no model (llm_model)")
    return ModelNames(root=manifest.llm_model, subs=manifest.sub_models)
