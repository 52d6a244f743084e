"""What LlamaIndex's `Settings` say where a user says nothing.

They are read when they are needed, and nothing is set by it.
"""

from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM

from rlm_integrations.errors import InputError


def default_llm() -> LLM:
    """LlamaIndex's default model.

    Raises:
        InputError: There is none: making OpenAI's takes a key.
    """
    try:
        return Settings.llm
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).replace("*", " ").split())
        raise InputError(
            f"no llm was given, and Settings.llm has none ({reason}): pass llm=…, or set Settings.llm"
        ) from error


def callbacks(given: CallbackManager | None) -> CallbackManager:
    """The callback manager that was given, or LlamaIndex's default if there is one, or a new one."""
    # `Settings.callback_manager` would make one, which then replaces that of the user's own default
    # model.
    return given or Settings._callback_manager or CallbackManager([])  # noqa: SLF001 - nothing public reads it without making it


def listening(given: CallbackManager) -> CallbackManager:
    """The callback manager that was given, if it has handlers, or LlamaIndex's default as it is
    now.
    """
    return given if given.handlers else callbacks(None)
