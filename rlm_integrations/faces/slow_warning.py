"""The warning before a large fan-out over a slow HTTP transport."""

import warnings

from rlm_integrations.lm.frameworks.slow_transport import (
    SLOW_FROM_CALLS,
    SlowTransportWarning,
    is_slow,
)


def warn_if_slow(model: object, name: str, calls: int, *, helper: str, options: str) -> None:
    """Warn if a model is about to make many concurrent calls over httpx's default transport.

    Args:
        model: The framework's model object.
        name: The model's name.
        calls: The number of concurrent calls.
        helper: The function of this library that creates the model with a fast transport.
        options: The options that limit the calls.
    """
    if calls >= SLOW_FROM_CALLS and is_slow(model):
        warnings.warn(
            f"{type(model).__name__}({name!r}) makes up to {calls} calls at once over httpx's "
            "default transport, which takes many times the processor time of a fast one: create "
            f"it with rlm_integrations.{helper}(…), or limit the calls with {options}",
            SlowTransportWarning,
            stacklevel=3,
        )
