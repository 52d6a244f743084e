"""The metrics of calls of models."""

from typing import TYPE_CHECKING

from rlm_integrations.otel.values import Attributes
from rlm_integrations.records import Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# Field of `Usage`, end of the metric's name, description
_TOKENS = (
    ("input_tokens", "input_tokens", "Input tokens, with cached ones."),
    ("output_tokens", "output_tokens", "Output tokens, with those of reasoning."),
    ("cached_tokens", "cache_read.input_tokens", "Input tokens from the provider's cache."),
    ("cache_write_tokens", "cache_creation.input_tokens", "Input tokens written to its cache."),
    ("reasoning_tokens", "reasoning.output_tokens", "Output tokens of reasoning."),
)


class CallMetrics:
    """The duration and the tokens of calls that were made."""

    def __init__(self, meter: "Meter") -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.inference.duration",
            unit="s",
            description="Duration of calls of models, with their retries.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = {
            field: meter.create_counter(
                f"gen_ai.client.inference.usage.{end}", unit="{token}", description=words
            )
            for field, end, words in _TOKENS
        }

    def record(
        self, about: Attributes, seconds: float, usage: Usage | None, error: str | None
    ) -> None:
        """Record a call.

        Args:
            about: The attributes that name its models.
            seconds: Its duration.
            usage: Its tokens, if the provider reported them.
            error: The type of its error, or None.
        """
        self._duration.record(seconds, about | ({"error.type": error} if error else {}))
        if usage is not None:
            for field, counter in self._tokens.items():
                if count := getattr(usage, field):
                    counter.add(count, about | {"gen_ai.token.modality": "text"})
