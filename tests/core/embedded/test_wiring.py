"""Who is told what: the settings files that a stack writes for its roles and its clients."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.place import open_place
from sandreel_core.embedded.wiring import Wiring
from sandreel_core.errors import Misconfigured
from sandreel_core.settings import load
from sandreel_core.spawner.settings import Settings

DSN = "postgresql://a:b@127.0.0.1:1/c"


def written(data: Path, **environ: str) -> dict[str, dict[str, Any]]:
    """(roles.toml, client.toml) by name."""
    with open_place(data) as place:
        Authority(place.identity).open()
        Wiring.read(environ).write(place, place.keys(), DSN)
        return {path.stem: tomllib.loads(path.read_text()) for path in (place.roles, place.client)}


def test_the_port_that_was_given_is_the_port_that_is_told(tmp_path: Path) -> None:
    files = written(tmp_path, SANDREEL_STACK_NATS_PORT="12345")
    assert {file["bus"]["nats_urls"][0] for file in files.values()} == {"nats://127.0.0.1:12345"}
    kept = written(tmp_path)["roles"]["bus"]["nats_urls"]
    assert kept == written(tmp_path)["client"]["bus"]["nats_urls"] != ["nats://127.0.0.1:12345"]


def test_sessions_see_nothing_of_the_data_whatever_else_is_hidden(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert written(data)["roles"]["spawner"]["hidden"] == [str(data)]
    own = tmp_path / "own.toml"
    own.write_text('[spawner]\nhidden = ["/srv/secret"]\n')
    assert written(data, SANDREEL_CONFIG=str(own))["roles"]["spawner"]["hidden"] == [str(data), "/srv/secret"]
    with open_place(data) as place:
        Authority(place.identity).open()
        environ = Wiring.read({"SANDREEL_SPAWNER_HIDDEN": "/a,/b"}).role_environment(place)
    assert load(Settings, environ=environ).hidden == (str(data), "/a", "/b")


def test_sessions_go_out_by_the_stacks_own_proxy_if_it_runs_and_by_the_operators_if_he_names_one(
    tmp_path: Path,
) -> None:
    contained = {"SANDREEL_STACK_BACKEND": "docker", "SANDREEL_EGRESS_PLAIN_HTTP": "true"}
    wiring = Wiring.read(contained)
    assert (wiring.embeds_egress, wiring.egress) == (True, {"plain_http": True})
    assert not Wiring.read(contained | {"SANDREEL_DOCKER_PROXY": "http://mine:3128"}).embeds_egress
    assert not Wiring.read({}).embeds_egress
    with open_place(tmp_path) as place:
        Authority(place.identity).open()
        for egress, proxy in ((True, "http://egress:3128"), (False, None)):
            wiring.write(place, place.keys(), DSN, egress=egress)
            told = load(Settings, environ={}, path=place.roles).docker
            assert told.proxy == proxy
            assert [service.partition("=")[2] for service in told.services] == [
                "nats:4222",
                *(["egress:3128"] if egress else []),
            ]


def test_there_is_a_gateway_where_a_provider_has_a_key_and_the_key_is_the_gateways_alone(tmp_path: Path) -> None:
    assert not Wiring.read({}).embeds_gateway
    own = tmp_path / "own.toml"
    own.write_text('[gateway]\nopenai_api_key_file = "openai.key"\nmodels = ["gpt-5.2"]\n')
    environ = {"ANTHROPIC_API_KEY": "sk-a", "SANDREEL_GATEWAY_IDLE_TIMEOUT_S": "5", "SANDREEL_CONFIG": str(own)}
    wiring = Wiring.read(environ)
    assert wiring.embeds_gateway
    assert wiring.gateway.table == {"openai_api_key_file": str(tmp_path / "openai.key"), "models": ["gpt-5.2"]}
    assert wiring.gateway.environ == {
        "SANDREEL_GATEWAY_ANTHROPIC_API_KEY": "sk-a",
        "SANDREEL_GATEWAY_IDLE_TIMEOUT_S": "5",
    }
    with open_place(tmp_path / "data") as place:
        Authority(place.identity).open()
        assert not {name for name in wiring.role_environment(place) if "API_KEY" in name or "GATEWAY" in name}
        wiring.write(place, place.keys(), DSN, gateway=True)
        roles = tomllib.loads(place.roles.read_text())
        assert "gateway" not in roles
        assert roles["bridge"]["gateway_url"].startswith("http://127.0.0.1:")


def test_what_was_set_for_the_gateway_counts_more_than_a_providers_own_variable(tmp_path: Path) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-a", "SANDREEL_GATEWAY_ANTHROPIC_API_KEY": "sk-b"}
    assert Wiring.read(environ).gateway.environ == {"SANDREEL_GATEWAY_ANTHROPIC_API_KEY": "sk-b"}
    with pytest.raises(Misconfigured, match=r"\[gateway\] listen is for a gateway that is run by itself"):
        _ = Wiring.read({"SANDREEL_GATEWAY_LISTEN": "0.0.0.0:1"}).gateway


def test_a_gateway_in_a_container_is_given_what_its_settings_name(tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    key.write_text("sk-file\n")
    prices = tmp_path / "prices.toml"
    prices.write_text('version = "1"\n')
    wiring = Wiring.read(
        {
            "SANDREEL_GATEWAY_ANTHROPIC_API_KEY_FILE": str(key),
            "OPENAI_API_KEY": "sk-o",
            "SANDREEL_GATEWAY_PRICES_FILE": str(prices),
            "SANDREEL_GATEWAY_MODELS": "gpt-5.2",
        }
    )
    table, variables, files = wiring.gateway.contained()
    assert files == {
        "anthropic_api_key.secret": "sk-file\n",
        "openai_api_key.secret": "sk-o",
        "prices_file.toml": 'version = "1"\n',
    }
    assert set(table) == {"anthropic_api_key_file", "openai_api_key_file", "prices_file"}
    assert variables == {"SANDREEL_GATEWAY_MODELS": "gpt-5.2"}
