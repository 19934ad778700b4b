"""`sandreel streams restore`: after a copy was brought back, every cursor of before is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Stream
from sandreel_core.contract.cursor import Cursor
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Malformed
from tests.support.nats import Connect
from tests.support.shell import Shell


@pytest.fixture
async def bus(nats_server: NatsServer, connect_bus: Connect, tmp_path: Path) -> JetStreamBus:
    bus = await connect_bus()
    await bus.ensure([Stream("REEL-0", ("evt.0.>",), 1 << 24, metadata={"epoch": "e1"}), Stream("CMD", ("cmd.>",), 1)])
    password = nats_server.password("role")
    lines = ["[bus]", f'nats_urls = ["{nats_server.url}"]', 'user = "role"', f'password = "{password}"']
    for name in ("client", "roles"):
        (tmp_path / f"{name}.toml").write_text("\n".join([*lines, ""]))
    return bus


async def test_a_restored_stream_has_a_new_epoch_and_the_same_messages(bus: JetStreamBus, tmp_path: Path) -> None:
    await bus.append("evt.0.a", b"kept")
    shell, old = Shell(tmp_path), Cursor("e1", 0, 1)
    (told,) = map(json.loads, (await shell.here("streams", "restore", "REEL-0", "--json")).out.splitlines())
    state = await bus.state("REEL-0")
    assert told == {"stream": "REEL-0", "epoch_before": "e1", "epoch": state.epoch}
    assert (state.messages, state.epoch != "e1") == (1, True)
    with pytest.raises(Malformed, match="it was restored or replaced"):
        old.check(state.epoch)
    said = await shell.here("streams", "restore", "REEL-0")
    again = (await bus.state("REEL-0")).epoch
    assert (said.code, said.out.decode().startswith(f"REEL-0: epoch {state.epoch} → {again};")) == (0, True)


async def test_of_several_streams_none_is_touched_when_one_is_wrong(bus: JetStreamBus, tmp_path: Path) -> None:
    done = await Shell(tmp_path).here("streams", "restore", "REEL-0", "CMD")
    assert (done.code, done.out, done.err.count("\n")) == (2, b"", 1)
    assert "CMD is no stream with cursors; those are REEL-0" in done.err
    assert (await bus.state("REEL-0")).epoch == "e1"
