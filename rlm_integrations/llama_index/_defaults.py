"""Defaults from LlamaIndex's `Settings`.

They are read when needed; reading them changes no setting.
"""

from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM

from rlm_integrations.errors import InputError


def default_llm() -> LLM:
    """LlamaIndex's default model.

    Raises:
        InputError: It cannot be created: LlamaIndex's own default, OpenAI, needs an API key.
    """
    try:
        return Settings.llm
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).replace("*", " ").split())
        raise InputError(
            f"no llm was given, and Settings.llm has no model ({reason}): pass llm=…, or set "
            "Settings.llm"
        ) from error


def callbacks(given: CallbackManager | None) -> CallbackManager:
    """The given callback manager, or LlamaIndex's default if it is set, or a new one."""
    # Reading `Settings.callback_manager` would create one, and replace that of the user's default
    # model.
    # The public property would create it
    return given or Settings._callback_manager or CallbackManager([])  # noqa: SLF001


def listening(given: CallbackManager) -> CallbackManager:
    """The given callback manager if it has handlers, else LlamaIndex's current default."""
    return given if given.handlers else callbacks(None)
