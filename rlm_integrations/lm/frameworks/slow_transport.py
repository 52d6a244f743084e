"""Which models of frameworks make their calls by a transport that does not bear many of them at
once.
"""

from typing import Final

from rlm_integrations.lm.frameworks.home_loop import client_of, is_at_home_everywhere

# Calls at once, from which openai 2's default transport costs several times as much
SLOW_FROM_CALLS: Final = 32


class SlowTransportWarning(UserWarning):
    """A model whose HTTP client does not bear so many calls at once."""


def is_slow(model: object) -> bool:
    """Whether it is asked through httpcore, which looks at all its connections for each of them.
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
