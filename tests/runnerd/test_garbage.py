"""Whatever is sent to runnerd: one refusal each, and nothing ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract import workspace as w
from sandreel_core.contract.session import CommandRefused
from sandreel_core.errors import Malformed, Refused
from tests.support.booted import Boot, booted

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
COMMANDS = "start write_stdin signal cancel resize keepalive"
TYPES = st.sampled_from([*(f"exec.{verb}" for verb in COMMANDS.split()), "env.patch", "session.stop", "nothing.known"])
FIELDS = st.sampled_from(
    ["exec", "argv", "shell", "cwd", "env", "stdin", "tty", "signal", "cols", "rows", "text", "base64", "set", "unset"]
)
DATA = st.dictionaries(FIELDS | st.text(max_size=8), JSON, max_size=5).filter(
    lambda data: "exec" not in data or data["exec"] != "ok"
)


async def test_arbitrary_commands_get_one_refusal_each_and_end_nothing(tmp_path: Path) -> None:
    """Bad input: wrong types, unknown fields, oversized values, bytes that are no JSON."""
    bodies: list[bytes] = [b"", b"\xff\xfe", b"[" * 5000, b"null", b"x" * 950_000]

    @given(kind=TYPES, data=DATA | JSON, envelope=st.dictionaries(st.text(max_size=8), JSON, max_size=3))
    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def gather(kind: str, data: Any, envelope: dict[str, Any]) -> None:
        bodies.append(json.dumps({"type": kind, "data": data, "__fill__": True} | envelope).encode())

    gather()
    async with booted(tmp_path / "w") as boot:
        await boot.desk.send(x.Start(exec="ok", argv=["cat"], stdin="hold"))
        ids = []
        for body in bodies:
            id = new_id()
            ids.append(id)
            sent = body
            if b'"__fill__": true' in body:
                filled = json.loads(body)
                del filled["__fill__"]
                subject = boot.desk.subjects.command("runnerd", id)
                filled = {
                    "specversion": "1.0", "id": id, "source": "/t", "subject": subject, "time": "2026-01-01T00:00:00Z",
                } | filled  # fmt: skip
                sent = json.dumps(filled).encode()
            await boot.desk.send_raw(id, sent)
        for id in ids:
            outcome = (await boot.desk.outcome(id)).data
            assert isinstance(outcome, CommandRefused | w.EnvPatched), outcome
            assert len(boot.desk.outcomes(id)) == 1
        assert (await boot.desk.ask(x.WriteStdin(exec="ok", text="still here\n", eof=True))).bytes == 11
        assert (await boot.desk.ended("ok")).exit_code == 0
        assert boot.desk.output("ok") == b"still here\n"


@pytest.mark.parametrize(
    "verb", ["drain", "hold", "keys", "list_files", "read_file", "write_file", "delete_file", "fetch_file"]
)
async def test_arbitrary_requests_are_answered_with_what_is_wrong(boot: Boot, verb: str) -> None:
    for body in (b"", b"\xff", b"{}x", b"[]", b'{"path": 3, "exec": null}', b'{"unknown": 1}'):
        try:
            await boot.bus.request(boot.desk.subjects.request("runnerd", verb), body)
        except (Malformed, Refused):
            continue
        raise AssertionError(f"{verb} took {body!r}")
    assert not boot.task.done()
