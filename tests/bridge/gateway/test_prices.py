"""The price table: exact sums, versions, and no price where none is known."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from sandreel_bridge.gateway.orgs import Orgs
from sandreel_bridge.gateway.prices import read_table
from sandreel_bridge.gateway.settings import Settings
from sandreel_bridge.gateway.tokens import Tokens
from sandreel_core.errors import Misconfigured

TABLE = Orgs(Settings(anthropic_api_key="k")).prices


def test_every_part_costs_its_own_and_the_sum_is_rounded_once() -> None:
    price = TABLE.price("anthropic", "claude-sonnet-4-5-20250929")
    assert price is not None
    tokens = Tokens(
        input=1_000_000, output=1_000_000, cache_read=1_000_000, cache_write=1_000_000, cache_write_1h=1_000_000
    )
    assert price.cost_micro_usd(tokens) == 3_000_000 + 15_000_000 + 300_000 + 3_750_000 + 6_000_000
    # 0.3 + 0.3 + 0.3 + 3.75 are 4.65, and not 0 + 0 + 0 + 4.
    assert price.cost_micro_usd(Tokens(cache_read=3, cache_write=1)) == 5
    assert price.cost_micro_usd(Tokens()) == 0


def test_a_long_prompt_is_charged_by_its_own_prices_all_of_it() -> None:
    price = TABLE.price("anthropic", "claude-haiku-5-5")
    assert price is not None
    assert price.cost_micro_usd(Tokens(input=100_000, output=1000)) == 10_000 + 500
    assert price.cost_micro_usd(Tokens(input=90_000, cache_read=10_001, output=1000)) == 45_000 + 500 + 2500


def test_a_search_that_the_provider_runs_has_its_own_price_or_makes_the_cost_unknown() -> None:
    searched = Tokens(input=1000, output=10, searches=3)
    sonnet, gpt = TABLE.price("anthropic", "claude-sonnet-4-5"), TABLE.price("openai", "gpt-5.2")
    assert sonnet is not None
    assert gpt is not None
    assert sonnet.cost_micro_usd(searched) == 3000 + 150 + 3 * 10_000
    assert sonnet.tokens_micro_usd(searched) == 3150
    assert gpt.cost_micro_usd(searched) is None
    assert gpt.cost_micro_usd(Tokens(input=1000, output=10)) == gpt.tokens_micro_usd(searched) == 1890


def test_what_a_call_may_cost_is_what_it_costs_when_a_cache_takes_it_all() -> None:
    price, long = TABLE.price("anthropic", "claude-sonnet-4-5"), TABLE.price("anthropic", "claude-haiku-5-5")
    assert price is not None
    assert long is not None
    assert price.most_micro_usd(1000, 10, for_an_hour=False) == 3750 + 150
    assert price.most_micro_usd(1000, 10, for_an_hour=True) == 6000 + 150
    assert long.most_micro_usd(200_000, 1000, for_an_hour=False) == 125_000 + 2500
    without = TABLE.price("gemini", "gemini-3-flash-preview")
    assert without is not None
    assert without.most_micro_usd(1000, 10, for_an_hour=True) == 500 + 30


def test_a_model_that_is_not_known_has_no_price() -> None:
    assert TABLE.price("anthropic", "claude-sonnet-4-5-turbo") is None
    assert TABLE.price("openai", "claude-sonnet-4-5") is None
    assert TABLE.price("openai", "gpt-5.2-2025-12-11") == TABLE.price("openai", "gpt-5.2") is not None


def test_the_table_is_dated_and_whole() -> None:
    assert date.fromisoformat(TABLE.version)
    for models in TABLE.models.values():
        for name, price in models.items():
            assert 0 < price.input <= price.output, name
            assert price.cache_read is not None, name
            assert price.cache_read <= price.input, name


def test_an_operators_prices_count_for_more(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'version = "ours-3"\n[anthropic]\nclaude-sonnet-4-5 = { input = 1, output = 2 }\n[openai]\nllama = { input = 0, output = 0 }\n'
    )
    table = Orgs(Settings(prices_file=str(own))).prices
    assert table.version == f"{TABLE.version}+ours-3"
    price = table.price("anthropic", "claude-sonnet-4-5")
    assert price is not None
    assert price.cost_micro_usd(Tokens(input=5, output=5, cache_read=5)) == 5 + 10 + 5
    assert table.price("openai", "llama") is not None
    assert table.price("anthropic", "claude-haiku-4-5") == TABLE.price("anthropic", "claude-haiku-4-5")
    assert price.web_search == 10, "which the operator's table does not say"
    own.write_text(
        'version = "4"\n[web_search]\nopenai = 25\nanthropic = 8\n[openai]\n"gpt-5.2" = { input = 1, output = 2, web_search = 0 }\n'
    )
    table = Orgs(Settings(prices_file=str(own))).prices
    told = [table.price("openai", name) for name in ("gpt-5-mini", "gpt-5.2")]
    told += [table.price("anthropic", "claude-sonnet-4-5"), table.price("gemini", "gemini-4-neon")]
    assert [each.web_search for each in told if each is not None] == [25, 0, 8, None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[anthropic]\n", "t has no version"),
        ("version = 1\n", "t has no version"),
        ('version = "1"\n[mistral]\n', r"\[mistral\] in t is no provider; there are anthropic, openai, gemini"),
        ('version = "1"\n[openai]\nx = { input = 1 }\n', r"x of \[openai\] in t: Object missing required field output"),
        ('version = "1"\n[openai]\nx = { input = -1, output = 1 }\n', r"x of \[openai\] in t: Expected float >= 0"),
        ('version = "1"\n[openai]\nx = { input = 1, output = 1, ouput = 1 }\n', "unknown field ouput"),
        (
            'version = "1"\n[openai]\nx = { input = 1, output = 1, above_tokens = 5 }\n',
            "above_tokens and long belong together",
        ),
        ('version = "1"\n[web_search]\nmistral = 1\n', r"\[web_search\] in t: Invalid enum value 'mistral'"),
        ('version = "1"\n[web_search]\nopenai = -1\n', r"\[web_search\] in t: Expected float >= 0"),
        ("version = ", "t is not TOML"),
    ],
)
def test_a_table_that_is_none_is_said_to_be_so(text: str, problem: str) -> None:
    with pytest.raises(Misconfigured, match=problem):
        read_table(text, "t")
