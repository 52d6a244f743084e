"""Prices are those of the list, cached tokens cost less, and a model without a price is unknown,
never free.
"""

import subprocess
import sys

import pytest

from rlm_integrations.lm import pricing
from rlm_integrations.lm.pricing import call_cost, cost, has_price, most_cost
from rlm_integrations.records import Usage

CALL = Usage(input_tokens=1_000_000, output_tokens=100_000)


def test_a_call_costs_its_tokens() -> None:
    """Input and output have the list's prices; reasoning tokens are part of the output."""
    assert cost(CALL, "gpt-4o") == pytest.approx(2.5 + 1.0)
    assert cost(Usage(1_000_000, 100_000, 0, 90_000), "gpt-4o") == pytest.approx(3.5)
    assert cost(Usage(), "gpt-4o") == 0.0


def test_cached_tokens_have_their_own_price() -> None:
    """Cached tokens are part of the input and cheaper, and those written to a cache dearer; if the
    list has no price for them, the cost is unknown, and a budget counts the price of input.
    """
    assert cost(Usage(1_000_000, 0, 400_000), "gpt-4o") == pytest.approx(0.6 * 2.5 + 0.4 * 1.25)
    name = "mistral-large-latest"
    assert cost(Usage(1_000_000, 0, 400_000), name) is None
    assert cost(Usage(1_000_000, 0, 0, 0, 400_000), name) is None
    plain = cost(Usage(1_000_000, 0), name)
    for usage in (Usage(1_000_000, 0, 400_000), Usage(1_000_000, 0, 400_000, 0, 1_000)):
        assert most_cost(usage, name, name) == plain > 0
    assert cost(Usage(1_000_000, 0, 500_000, 0, 400_000), "claude-sonnet-4-5") == pytest.approx(
        0.1 * 6 + 0.5 * 0.6 + 0.4 * 7.5
    )
    # More cached than input tokens: a provider's mistake
    assert cost(Usage(100, 0, 400), "gpt-4o") == cost(Usage(100, 0, 100), "gpt-4o")


@pytest.mark.parametrize("name", ["gpt-4o-2024-08-06", "openai/gpt-4o", "GPT-4o"])
def test_names_as_providers_and_gateways_write_them(name: str) -> None:
    """A name with a date, with a vendor before a slash or in another case means the same model."""
    assert cost(CALL, name) == cost(CALL, "gpt-4o")


@pytest.mark.parametrize(
    "name",
    ["sub", "", "no-such-model", "llama3.1:8b", "gpt-99", "text-embedding-3-small", "claude-x"],
)
def test_a_missing_price_is_unknown(name: str) -> None:
    """A model without a price costs None, so that a cost budget can refuse it; the price of
    embeddings does not count.
    """
    assert cost(CALL, name) is None
    assert not has_price(name)


def test_no_listed_price_is_zero_by_accident() -> None:
    """The list has models without any price; every model with a price costs something for input and
    output.
    """
    from genai_prices.data_snapshot import get_snapshot

    names = [model.id for provider in get_snapshot().providers for model in provider.models]
    assert len(names) > 500
    for usage in (Usage(input_tokens=10**6), Usage(output_tokens=10**6)):
        assert [name for name in names if cost(usage, name) == 0] == []


def test_the_address_selects_the_provider() -> None:
    """A provider known by its address has its own prices; at an unknown address the model's name
    determines the price.
    """
    assert has_price("openai/gpt-4o", base_url="https://openrouter.ai/api/v1")
    assert has_price("meta-llama/llama-3.3-70b-instruct", base_url="https://openrouter.ai/api/v1")
    assert not has_price("meta-llama/llama-3.3-70b-instruct")
    assert cost(CALL, "gpt-4o", base_url="http://127.0.0.1:1/v1") == cost(CALL, "gpt-4o")
    assert cost(CALL, "gpt-4o", base_url="https://api.openai.com/v1") == cost(CALL, "gpt-4o")


def test_the_offline_model_is_free() -> None:
    """The offline model has a known cost of zero."""
    assert cost(CALL, "offline") == 0.0
    assert has_price("offline")


async def test_prepare_reads_the_list() -> None:
    """After `prepare`, prices are available."""
    await pricing.prepare()
    assert has_price("gpt-5-mini")


def test_the_list_is_read_on_first_use_and_nothing_is_fetched() -> None:
    """Importing the module does not load the price list; a price opens no socket."""
    code = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(refuse)
from rlm_integrations.lm.pricing import has_price
assert "genai_prices" not in sys.modules
assert has_price("gpt-5-mini")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_call_costs_what_the_answering_model_does() -> None:
    """A call has the price of the answering model; if that has none, the price of the requested
    one.
    """
    assert call_cost(CALL, "gpt-5-mini", "gpt-4o") == cost(CALL, "gpt-4o")
    assert call_cost(CALL, "gpt-5-mini", "my-alias") == cost(CALL, "gpt-5-mini")
    assert call_cost(CALL, "gpt-4o", "gpt-4o") == cost(CALL, "gpt-4o")
    assert call_cost(CALL, "my-model", "my-alias") is None
