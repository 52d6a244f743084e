"""Detects models of frameworks whose transport is slow with many concurrent calls."""

from typing import Final

from rlm_integrations.lm.frameworks.home_loop import client_of, is_at_home_everywhere

# Concurrent calls above which openai 2's default transport takes several times the processor time
SLOW_FROM_CALLS: Final = 32


class SlowTransportWarning(UserWarning):
    """A model whose HTTP client is slow with so many concurrent calls."""


def is_slow(model: object) -> bool:
    """Whether its calls go through httpcore, which scans all its connections for each of them.
    openai 3 has its successor.
    """
    package = type(model).__module__
    if is_at_home_everywhere(model) or not package.startswith(
        ("langchain_openai", "llama_index.llms.openai")
    ):
        return False
    client = client_of(model)
    if client is None:  # LlamaIndex makes it at the first call, and needs openai 2
        return package.startswith("llama_index")
    return type(getattr(client, "_transport", None)).__module__.partition(".")[0] == "httpx"
