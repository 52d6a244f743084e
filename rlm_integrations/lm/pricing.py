"""What calls cost, by the price list of `genai-prices`, which comes with that package: nothing is
fetched.
"""

from typing import TYPE_CHECKING

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.records import Usage

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

FREE = {"offline"}  # our own


def cost(usage: Usage, model: str, *, base_url: str | None = None) -> float | None:
    """What one call cost in US dollars, or None where the list has no price for the model; zero
    only for what is free.

    To be asked per call: some prices rise with the length of the input. Of the input, the cached
    tokens cost what a cached token costs where the list says so; reasoning tokens are output. The
    first use reads the list (half a second): see `prepare`.

    Args:
        usage: The tokens, as the provider counted them.
        model: The model's name; "vendor/name" is understood.
        base_url: Where it was asked. A provider that the list knows by its address has its own
            prices; for any other address the price is that of the name, which for open weights on
            one's own machines is what renting them would cost.
    """
    if model in FREE:
        return 0.0
    price = _calculation(usage, model, base_url)
    return None if price is None else float(price.total_price)


def call_cost(
    usage: Usage, asked: str, answering: str, *, base_url: str | None = None
) -> float | None:
    """What one call cost: by the model that answered, where that has a known price, else by the one
    that was asked.
    """
    found = cost(usage, answering, base_url=base_url)
    return cost(usage, asked, base_url=base_url) if found is None and asked != answering else found


def has_price(model: str, *, base_url: str | None = None) -> bool:
    """Whether `cost` knows this model, so that a cost budget can hold."""
    return cost(Usage(), model, base_url=base_url) is not None


async def prepare() -> None:
    """Read the price list off the event loop, so that `cost` and `has_price` do not hold it up."""
    await offload(has_price, "gpt-5-mini")


def _calculation(usage: Usage, model: str, base_url: str | None) -> "PriceCalculation | None":
    from genai_prices import Usage as Counts
    from genai_prices import calc_price

    cached = min(usage.cached_tokens, usage.input_tokens)
    counts = Counts(
        input_tokens=usage.input_tokens, cache_read_tokens=cached, output_tokens=usage.output_tokens
    )
    places = [{"provider_api_url": base_url}] if base_url else []
    for place in [*places, {}, {"provider_id": "litellm"}]:  # litellm's names are "vendor/name"
        try:
            price = calc_price(counts, model, **place)  # type: ignore[call-overload]
        except LookupError:
            continue
        # Many entries hold no prices, or only those of embeddings: their sum would be zero, or too
        # little.
        if price.model_price.input_mtok is not None and price.model_price.output_mtok is not None:
            return price  # type: ignore[no-any-return]
    return None
