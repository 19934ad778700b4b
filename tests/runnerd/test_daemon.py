"""runnerd as a whole, in this process, over the memory twin: commands and their outcomes, requests, drain, the end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract import files as f
from sandreel_core.contract import runnerd as r
from sandreel_core.contract import session as s
from sandreel_core.contract import workspace as w
from sandreel_core.contract.requests import Done
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.errors import NotFound, Refused
from sandreel_core.ids import uuid7
from sandreel_runnerd import service as service_module
from tests.support.booted import Boot, booted
from tests.support.site import BODY, web_site


async def test_a_start_is_accepted_started_recorded_and_exits(boot: Boot) -> None:
    id = await boot.desk.send(x.Start(exec="e", argv=["sh", "-c", "echo hello; echo oops >&2; exit 3"]))
    exited = await boot.desk.ended("e")
    assert (exited.exit_code, exited.reason, exited.lines) == (3, "exited", {"stdout": 1, "stderr": 1})
    assert boot.desk.kinds("e")[:2] == ["exec.accepted", "exec.started"]
    assert boot.desk.kinds("e")[-1] == "exec.exited"
    assert [event.n for event in boot.desk.events("e")] == list(range(1, len(boot.desk.events("e")) + 1))
    assert boot.desk.output("e") == b"hello\n"
    accepted = boot.desk.events("e")[0]
    assert (accepted.causationid, accepted.actor, accepted.data.boot_id) == (id, "tester", "1-1")
    assert accepted.source == "/runnerd/acme/s1/1-1"


async def test_a_start_that_is_delivered_again_runs_once(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="echo ran >> log"))
    await boot.desk.ended("e")
    # The server forgets its consumers: the next feed begins behind what was handled, or before.
    boot.server.crash()
    boot.server.start()
    assert isinstance(await boot.desk.ask(w.PatchEnv(set={"A": "1"})), w.EnvPatched)
    assert len(boot.desk.feeds) >= 2
    refused = await boot.desk.ask(x.Start(exec="e", shell="echo ran >> log"))
    assert isinstance(refused, CommandRefused)
    assert refused.code == "DUPLICATE_EXEC"
    assert (boot.workspace / "log").read_text() == "ran\n"


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (x.Start(exec="e"), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["a"], shell="b"), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["a\0b"]), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["cat"], stdin_base64="*"), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["pwd"], cwd="/etc"), "INVALID_CWD"),
        (x.Start(exec="e", argv=["pwd"], cwd="nowhere"), "INVALID_CWD"),
        (
            x.Start(exec="e", argv=["pwd"], secret_env={"A": x.SecretRef(role="broker", lease="l")}),
            "SECRET_UNAVAILABLE",
        ),
    ],
)
async def test_a_bad_start_is_refused_before_it_is_accepted(boot: Boot, start: x.Start, code: str) -> None:
    refused = await boot.desk.ask(start)
    assert isinstance(refused, CommandRefused)
    assert refused.code == code
    assert boot.desk.events("e") == []
    # And its id is free.
    await boot.desk.send(x.Start(exec="e", argv=["true"]))
    assert (await boot.desk.ended("e")).exit_code == 0


async def test_the_fifth_exec_is_refused_and_execs_do_not_wait_for_each_other(boot: Boot) -> None:
    for index in range(4):
        await boot.desk.send(x.Start(exec=f"e{index}", argv=["cat"], stdin="hold"))
    refused = await boot.desk.ask(x.Start(exec="e4", argv=["true"]))
    assert refused.code == "EXEC_LIMIT"
    duplicate = await boot.desk.ask(x.Start(exec="e0", argv=["true"]))
    assert duplicate.code == "DUPLICATE_EXEC"
    written = await boot.desk.ask(x.WriteStdin(exec="e2", text="hi\n", eof=True))
    assert written == x.StdinWritten(bytes=3, eof=True)
    assert (await boot.desk.ended("e2")).exit_code == 0
    assert boot.desk.output("e2") == b"hi\n"
    health = await boot.desk.request("health", None, r.Health)
    assert health.live_execs == ["e0", "e1", "e3"]
    assert health.boot_id == "1-1"


async def test_the_session_may_ask_for_another_limit(tmp_path: Path) -> None:
    async with booted(tmp_path / "w", limits=s.Limits(execs=1)) as boot:
        await boot.desk.send(x.Start(exec="a", argv=["cat"], stdin="hold"))
        assert (await boot.desk.ask(x.Start(exec="b", argv=["true"]))).code == "EXEC_LIMIT"


async def test_cancel_signal_and_keepalive_have_their_outcomes(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="trap 'echo got' USR1; echo up; while :; do sleep 0.02; done"))
    await boot.desk.until(lambda: boot.desk.output("e"))
    assert await boot.desk.ask(x.Signal(exec="e", signal="SIGUSR1")) == x.Signalled(signal="SIGUSR1", why="asked")
    assert (await boot.desk.ask(x.Signal(exec="e", signal="SIGNONE"))).code == "BAD_REQUEST"
    assert (await boot.desk.ask(x.WriteStdin(exec="e", text="x"))).code == "STDIN_CLOSED"
    assert (await boot.desk.ask(x.WriteStdin(exec="e"))).code == "BAD_REQUEST"
    assert (await boot.desk.ask(x.Resize(exec="e", cols=1, rows=1))).code == "BAD_REQUEST"
    assert isinstance(await boot.desk.ask(x.Keepalive(exec="e")), CommandSettled)
    assert await boot.desk.ask(x.Cancel(exec="e")) == x.Signalled(signal="SIGTERM", why="cancelled")
    exited = await boot.desk.ended("e")
    assert exited.reason == "cancelled"
    for command in (x.Cancel(exec="e"), x.Keepalive(exec="e"), x.Signal(exec="never", signal="SIGTERM")):
        assert (await boot.desk.ask(command)).code == "EXEC_NOT_FOUND"


async def test_a_cancel_passes_a_write_that_nobody_reads(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["sleep", "60"], stdin="hold"))
    stuck = [await boot.desk.send(x.WriteStdin(exec="e", text="x" * 60_000)) for _ in range(20)]
    assert (await boot.desk.ask(x.Cancel(exec="e"))).signal == "SIGTERM"
    await boot.desk.ended("e")
    for id in stuck:
        assert isinstance((await boot.desk.outcome(id)).data, x.StdinWritten | CommandRefused)


async def test_late_and_stale_commands_are_refused(boot: Boot) -> None:
    late = await boot.desk.ask(x.Start(exec="e", argv=["true"]), deadline=datetime.now(UTC) - timedelta(seconds=1))
    assert late.code == "EXPIRED"
    old = uuid7(int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1000), b"0123456789")
    assert (await boot.desk.ask(x.Start(exec="e", argv=["true"]), id=old)).code == "STALE"
    assert (await boot.desk.ask(x.Cancel(exec="e"), expectedrevision="e1:0:1")).code == "BAD_REQUEST"
    assert boot.desk.events("e") == []


async def test_files_are_written_and_every_change_is_an_event(boot: Boot) -> None:
    data = b"some bytes"
    digest = hashlib.sha256(data).hexdigest()
    stored = await boot.desk.request(
        "write_file",
        f.WriteFile(path="d/f", upload="u", offset=0, base64=base64.b64encode(data).decode(), eof=True, actor="ann"),
        f.FileStored,
    )
    assert stored == f.FileStored(size=10, sha256=digest)
    read = await boot.desk.request("read_file", f.ReadFile(path="d/f"), f.FileChunk)
    assert (base64.b64decode(read.base64), read.sha256, read.eof) == (data, digest, True)
    listing = await boot.desk.request("list_files", f.ListFiles(path="d"), f.FileList)
    assert [entry.name for entry in listing.entries] == ["f"]
    await boot.desk.request("delete_file", f.DeleteFile(path="d/f", actor="bob"), Done)
    with pytest.raises(NotFound):
        await boot.desk.request("read_file", f.ReadFile(path="d/f"), f.FileChunk)
    with pytest.raises(Refused, match="UNSAFE_PATH"):
        await boot.desk.request("read_file", f.ReadFile(path="../x"), f.FileChunk)
    await boot.desk.until(lambda: len(boot.desk.stored) == 2)
    assert [event.data for _, event in boot.desk.stored] == [
        w.FileWritten(path="d/f", size=10, sha256=digest, actor="ann"),
        w.FileDeleted(path="d/f", actor="bob"),
    ]


async def test_heartbeat_and_health_say_what_is(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["yes"]))
    last = (await boot.desk.bus.state("CMD")).last_sequence
    await boot.desk.until(lambda: boot.desk.output("e"))
    boot.bus.go_away()
    async with asyncio.timeout(20):
        while boot.daemon._vitals.heartbeat().spool_bytes < 100_000:
            await asyncio.sleep(0.01)
    health = boot.daemon.health()
    assert health.spool_capacity_bytes == 1024 * 1024 >= health.spool_bytes >= 100_000
    assert health.window_messages > 0
    boot.bus.come_back()
    await boot.desk.request("hold", r.Hold(hold=True), Done)
    await boot.desk.until(lambda: boot.desk.beats[-1].held)
    assert (boot.desk.beats[-1].live_execs, boot.desk.beats[-1].commands_handled) == (1, last)
    # Output is no use that somebody makes of it: it is idle for longer from beat to beat.
    idle_s, beats = boot.desk.beats[-1].idle_s, len(boot.desk.beats)
    await boot.desk.until(lambda: len(boot.desk.beats) > beats + 1)
    assert boot.desk.beats[-1].idle_s > idle_s > 0
    await boot.desk.request("hold", r.Hold(hold=False), Done)
    await boot.desk.send(x.Cancel(exec="e"))
    await boot.desk.ended("e")
    await boot.desk.until(lambda: boot.desk.beats[-1].spool_bytes == boot.desk.beats[-1].live_execs == 0)


async def test_health_says_for_how_long_it_is_connected(boot: Boot) -> None:
    first = await boot.desk.request("health", None, r.Health)
    second = await boot.desk.request("health", None, r.Health)
    assert 0 < first.connected_s < second.connected_s, "not since it was first asked"
    since = boot.daemon._vitals._connected_since
    boot.bus.go_away()
    boot.bus.come_back()
    beats = len(boot.desk.beats)
    await boot.desk.until(lambda: len(boot.desk.beats) > beats + 1)
    assert boot.daemon._vitals._connected_since > since
    assert (await boot.desk.request("health", None, r.Health)).connected_s > 0


async def test_keys_reach_a_terminal(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["cat"], tty=x.Terminal(cols=80, rows=24)))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    keys = r.Keys(exec="e", offset=0, base64=base64.b64encode(b"hi\n").decode())
    for _ in range(2):
        assert await boot.desk.request("keys", keys, r.KeysTaken) == r.KeysTaken(offset=3)
    await boot.desk.until(lambda: boot.desk.output("e").count(b"hi") == 2)
    with pytest.raises(Refused, match="EXEC_NOT_FOUND"):
        await boot.desk.request("keys", r.Keys(exec="x", offset=0, base64=""), r.KeysTaken)


async def test_a_download_is_an_event(boot: Boot) -> None:
    with web_site() as url:
        stored = await boot.desk.request("fetch_file", f.FetchFile(url=f"{url}/body", path="got"), f.FileStored)
        assert stored.size == len(BODY)
        with pytest.raises(Refused, match="FETCH_FAILED"):
            await boot.desk.request("fetch_file", f.FetchFile(url=f"{url}/nothing", path="got"), f.FileStored)
    await boot.desk.until(lambda: boot.desk.stored)
    assert boot.desk.stored[0][1].data == w.FileWritten(path="got", size=len(BODY), sha256=stored.sha256 or "")


async def test_downloads_that_hang_in_the_resolver_keep_their_turns_and_take_no_more_threads(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_ABORT_GRACE_S", 0.05)
    resolve, answered = socket.getaddrinfo, threading.Event()

    def stuck(*args: Any, **more: Any) -> Any:
        answered.wait(30)
        return resolve(*args, **more)

    def fetch(url: str, timeout_s: float) -> Any:
        return boot.desk.request("fetch_file", f.FetchFile(url=url, path="got", timeout_s=timeout_s), f.FileStored)

    with web_site() as url:
        monkeypatch.setattr(socket, "getaddrinfo", stuck)
        try:
            for ended in await asyncio.gather(*(fetch(f"{url}/body", 0.05) for _ in range(2)), return_exceptions=True):
                assert isinstance(ended, Refused)
                assert ended.code == "FETCH_TIMEOUT"
            with pytest.raises(Refused, match="FETCH_LIMIT"):
                await fetch(f"{url}/body", 10)
        finally:
            answered.set()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await fetch(f"{url}/body", 10)).size == len(BODY)
                    return
                except Refused as refused:
                    if refused.code != "FETCH_LIMIT":
                        raise
                    await asyncio.sleep(0.01)
