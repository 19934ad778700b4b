"""Who is told what: the settings files that a stack writes for its roles and its clients."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.place import open_place
from sandreel_core.embedded.wiring import Wiring
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
