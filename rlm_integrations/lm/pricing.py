"""The cost of calls, from the price list in the package `genai-prices`; nothing is downloaded."""

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.records import Usage

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

FREE = {"offline"}


def cost(usage: Usage, model: str, *, base_url: str | None = None) -> float | None:
    """The cost of one call in US dollars, or None if the list has no price for the model; zero only
    for a free model.

    Compute it per call: some prices rise with the length of the input. Input tokens read from a
    cache or written to one have prices of their own; the cost is unknown if there are such tokens
    and the list has no price for them. Reasoning tokens are output. The first use reads the list
    (half a second): see `prepare`.

    Args:
        usage: The provider's token counts.
        model: The model's name; "vendor/name" works too.
        base_url: The address of its provider. A provider whose address is in the list has its own
            prices; at any other address the price is that of the name, which for self-hosted open
            weights is what a hosted model would cost.
    """
    if model in FREE:
        return 0.0
    price = _calculation(usage, model, base_url)
    return None if price is None else float(price.total_price)


def call_cost(
    usage: Usage, asked: str, answering: str, *, base_url: str | None = None
) -> float | None:
    """The cost of one call: of the model that answered, if that has a known price, else of the one
    that was asked.
    """
    found = cost(usage, answering, base_url=base_url)
    return cost(usage, asked, base_url=base_url) if found is None and asked != answering else found


def most_cost(usage: Usage, asked: str, answering: str) -> float:
    """The maximum cost of one call, also if the list has no price for cached tokens: these are
    cheaper than others. Zero without a known price.
    """
    found = call_cost(usage, asked, answering)
    if found is None:
        found = call_cost(replace(usage, cached_tokens=0), asked, answering)
    if found is None:
        found = call_cost(replace(usage, cached_tokens=0, cache_write_tokens=0), asked, answering)
    return found or 0.0


def has_price(model: str, *, base_url: str | None = None) -> bool:
    """Whether `cost` knows this model, so that a cost budget can be enforced."""
    return cost(Usage(), model, base_url=base_url) is not None


@lru_cache(maxsize=1_000)
def has_write_price(model: str) -> bool:
    """Whether tokens that the provider writes to its cache have a price of their own."""
    return cost(Usage(input_tokens=1, cache_write_tokens=1), model) is not None


async def prepare() -> None:
    """Read the price list off the event loop, so that `cost` and `has_price` do not block it."""
    await offload(has_price, "gpt-5-mini")


def _calculation(usage: Usage, model: str, base_url: str | None) -> "PriceCalculation | None":
    from genai_prices import Usage as Counts
    from genai_prices import calc_price

    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    counts = Counts(
        input_tokens=usage.input_tokens,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        output_tokens=usage.output_tokens,
    )
    places = [{"provider_api_url": base_url}] if base_url else []
    for place in [*places, {}, {"provider_id": "litellm"}]:  # litellm's names are "vendor/name"
        try:
            price = calc_price(counts, model, **place)  # type: ignore[call-overload]
        except LookupError:
            continue
        # Many entries have no prices, or only those of embeddings: the cost would be zero or too
        # low.
        needed = ["input_mtok", "output_mtok"]
        needed += ["cache_read_mtok"] * bool(cached) + ["cache_write_mtok"] * bool(written)
        if all(getattr(price.model_price, name, None) is not None for name in needed):
            return price  # type: ignore[no-any-return]
    return None
