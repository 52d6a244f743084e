"""Starts what a process starts once, before its first run. Importing this loads little else."""

from importlib import import_module
from typing import TYPE_CHECKING

from rlm_integrations._concurrency.threads import in_thread

if TYPE_CHECKING:
    from rlm_integrations.sandbox.base import Sandbox


def warm(sandbox: "str | Sandbox" = "process") -> None:
    """Start and load everything that the first run of this process would wait for: the server of
    the sandbox, threads, the modules of the engine and of the HTTP client.

    For servers, in each of their processes, after the fork. Nothing is sent: the offline model
    answers a question. A second call does no harm.

    Args:
        sandbox: The sandbox of the runs; see `RLM`.

    Raises:
        SandboxUnavailableError: A layer of protection is not available on this machine.
        SandboxError: The sandbox could not be started.
    """
    from rlm_integrations.engine.rlm import RLM

    import_module("rlm_integrations.lm.openai.client")
    RLM("offline", sandbox=sandbox).completion("What is ready?", "This process is ready.")


async def awarm(sandbox: "str | Sandbox" = "process") -> None:
    """`warm` in a thread of its own, without blocking the event loop.

    Args:
        sandbox: The sandbox of the runs; see `RLM`.

    Raises:
        SandboxError: As `warm`.
    """
    await in_thread(warm, sandbox)
