"""Sandboxes, in which model code runs."""

from rlm_integrations.errors import InputError
from rlm_integrations.sandbox.base import Sandbox

__all__ = ["sandbox_named"]

_NAMES = ("process", "inprocess")


def sandbox_named(name: str | Sandbox) -> Sandbox:
    """The sandbox of this name, or the given one.

    Raises:
        InputError: No sandbox has this name.
    """
    if not isinstance(name, str) and callable(getattr(name, "open", None)):
        return name
    if name == "process":
        from rlm_integrations.sandbox.process import ProcessSandbox

        return ProcessSandbox()
    if name == "inprocess":
        from rlm_integrations.sandbox.inprocess import InProcessSandbox

        return InProcessSandbox()
    raise InputError(f"there is no sandbox {name!r}; choose one of {', '.join(map(repr, _NAMES))}")
