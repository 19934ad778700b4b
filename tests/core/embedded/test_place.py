"""The data directory: one owner at a time, secrets for nobody else, and an operator's mistake said in one line."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.embedded.ending import left_over
from sandreel_core.embedded.place import free_port, holder, is_free, moved, moved_health, open_place, toml
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured


def test_keys_are_made_once_and_kept(tmp_path: Path) -> None:
    with open_place(tmp_path / "data") as place:
        first = place.keys()
    with open_place(tmp_path / "data") as place:
        assert place.keys() == first


def test_what_an_earlier_version_kept_is_no_trouble(tmp_path: Path) -> None:
    with open_place(tmp_path / "data") as place:
        keys = place.keys()
        before = json.loads(place.keys_file.read_text()) | {"role_password": "old", "client_password": "old"}
        place.keys_file.write_text(json.dumps(before))
        assert place.keys() == keys


def test_a_port_that_moves_leaves_the_rest(tmp_path: Path) -> None:
    with open_place(tmp_path / "data") as place:
        keys = place.keys()
    after = moved(keys, "nats")
    assert after.nats_port != keys.nats_port
    assert (after.postgres_port, after.installation) == (keys.postgres_port, keys.installation)


def test_a_role_gets_a_port_for_its_health_also_where_none_was_kept(tmp_path: Path) -> None:
    with open_place(tmp_path / "data") as place:
        before = json.loads(place.keys_file.read_text()) if place.keys() else {}
        del before["health_ports"]  # as it was written before roles had any
        place.keys_file.write_text(json.dumps(before))
        place.keep(moved_health(place.keys(), "spawner"))
        first = place.keys()
        place.keep(moved_health(first, "projector"))
        after = place.keys()
    assert set(after.health_ports) == {"spawner", "projector"}
    assert after.health_ports["spawner"] == first.health_ports["spawner"]
    assert after.nats_port == before["nats_port"]


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    with open_place(tmp_path / "data") as place:
        place.keys()
        assert stat.S_IMODE(place.keys_file.stat().st_mode) == 0o600
    write_secret(tmp_path / "x", "geheim")
    write_secret(tmp_path / "x", "anders")
    assert (tmp_path / "x").read_text() == "anders"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert holder(data) is None
    with open_place(data):
        assert holder(data) == os.getpid()
        with pytest.raises(Misconfigured, match=rf"is up on .* already \(pid {os.getpid()}\)"), open_place(data):
            pass
    assert holder(data) is None


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"cannot be used \(not a directory\): give another with --data"):
        with open_place(tmp_path / "file" / "data"):
            pass


def test_a_directory_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(Misconfigured, match="cannot be used"), open_place(Path("/proc/sandreel")):
        pass


def test_a_stale_number_of_a_postmaster_is_nothing_left_over(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    for pid in (os.getpid(), 2**22 + 1, 0):  # a stranger's, nobody's (above the kernel's greatest), none
        (cluster / "postmaster.pid").write_text(f"{pid}\n")
        assert not left_over(tmp_path)
    ours = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", cluster], stdin=subprocess.PIPE)
    (cluster / "postmaster.pid").write_text(f"{ours.pid}\n")
    assert left_over(tmp_path)
    ours.communicate()
    assert not left_over(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"installation": 1}'])
def test_keys_that_are_not_in_order_are_one_line_without_their_values(tmp_path: Path, text: str) -> None:
    with open_place(tmp_path / "data") as place:
        place.keys_file.write_text(text)
        with pytest.raises(Misconfigured, match="cannot be read"):
            place.keys()


def test_ports_are_free_and_not_those_of_outgoing_connections() -> None:
    port = free_port()
    assert 20_000 <= port < 32_000
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)


def test_toml_says_what_it_was_told() -> None:
    tables: dict[str, dict[str, Any]] = {
        "bus": {"nats_urls": ["nats://a"], "user": None, "partitions": 2},
        "log": {"level": 'q"\\ü\n'},
    }
    read = tomllib.loads(toml(tables))
    assert read == {"bus": {"nats_urls": ["nats://a"], "partitions": 2}, "log": {"level": 'q"\\ü\n'}}
