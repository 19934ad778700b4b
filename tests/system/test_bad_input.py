"""Whatever is thrown at the roles as a command is answered by exactly one event or the dead letter, and they go on."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.clock import new_id
from sandreel_core.contract.catalog import COMMANDS
from sandreel_core.errors import SandreelError
from tests.support.system import ORG, STREAM, Site, until
from tests.support.system_readers import reading
from tests.support.system_users import bus_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("input"), pytest.mark.timeout(180)]
ROUNDS, BATCH = 8, 30
# Commands that nothing is wrong with, to be broken in one place or several.
DATA: dict[str, dict[str, Any]] = {
    "session.create": {"owner": {"type": "user", "id": "u"}, "ttl_s": 60.0, "env": {"A": "b"}, "limits": {"pids": 64}},
    "session.stop": {},
    "session.resume": {},
    "session.pin": {},
    "session.unpin": {},
    "session.extend": {"ttl_s": 60.0},
    "exec.start": {"exec": "x", "argv": ["true"], "stdin_text": "a", "tty": {"cols": 80, "rows": 24}, "timeout_s": 5.0},
    "exec.write_stdin": {"exec": "steady", "text": "a", "eof": False},
    "exec.signal": {"exec": "nobody", "signal": "SIGUSR1"},
    "exec.cancel": {"exec": "nobody"},
    "exec.resize": {"exec": "steady", "cols": 80, "rows": 24},
    "exec.keepalive": {"exec": "steady"},
    "env.patch": {"set": {"A": "b"}, "unset": ["C"]},
}
DEEP = "<a value 2,000 deep>"  # put in as text: Python's own encoder refuses it
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=20),
    st.sampled_from(["", "a b", "*", ">", "x.y", "x" * 65, "ä", "\0", "../..", "x\n", "é" * 40_000, "A" * 800_000]),
    st.lists(st.none(), max_size=3), st.dictionaries(st.text(max_size=5), st.none(), max_size=3),
    st.just([["deep"]] * 3), st.just(DEEP), st.just({"a": {"b": {"c": 1}}}), st.just(["x"] * 5000), st.just({f"N{i}": "v" for i in range(200)}),
)  # fmt: skip
ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time", "data", "deadline", "expectedrevision", "actor")


@dataclass(frozen=True)
class Throw:
    """One body on one subject; `who` is the session that it is meant for."""

    type: str
    role: str
    who: str
    body: Any  # an edit of a good command, or bytes


@st.composite
def throws(draw: st.DrawFn) -> Throw:
    kind = draw(st.sampled_from(sorted(DATA)))
    right = "spawner" if kind.startswith("session.") else "runnerd"
    role = draw(st.sampled_from([right, right, right, "spawner", "runnerd", "broker"]))
    who = draw(st.sampled_from(["live", "live", "live", "stopped", "nobody"]))
    if draw(st.integers(0, 5)) == 0:
        raw = st.one_of(
            st.binary(max_size=50), st.sampled_from([b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}" * 9])
        )
        return Throw(kind, role, who, draw(raw))
    edits = st.tuples(st.sampled_from(["set", "drop", "add", "attribute", "lose"]), st.integers(0, 20), VALUES)
    return Throw(kind, role, who, draw(st.lists(edits, max_size=3)))


def body_of(throw: Throw, subject: str, id: str) -> bytes:
    if isinstance(throw.body, bytes):
        return throw.body
    data = dict(DATA[throw.type])
    message: dict[str, Any] = {"specversion": "1.0", "id": id, "source": "/test", "type": throw.type, "data": data}
    message |= {"subject": subject, "time": "2026-01-01T00:00:00Z"}
    for what, place, value in throw.body:
        names = sorted(data)
        if what == "set" and names:
            data[names[place % len(names)]] = value
        elif what == "drop" and names:
            del data[names[place % len(names)]]
        elif what == "add":
            data[f"unknown_{place}"] = value
        elif what == "attribute":
            message[ATTRIBUTES[place % len(ATTRIBUTES)]] = value
        elif what == "lose":
            message.pop(ATTRIBUTES[place % len(ATTRIBUTES)], None)
    return json.dumps(message).replace(json.dumps(DEEP), "[" * 2000 + "]" * 2000).encode()[:1_000_000]


def collected() -> list[list[Throw]]:
    """Batches of them, made outside the event loop: hypothesis does not know of it."""
    batches: list[list[Throw]] = []

    @settings(
        max_examples=ROUNDS, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(throws(), min_size=BATCH, max_size=BATCH))
    def collect(batch: list[Throw]) -> None:
        batches.append(batch)

    collect()
    return batches


async def test_every_command_has_exactly_one_answer_and_the_roles_go_on(site: Site) -> None:
    assert set(DATA) <= set(COMMANDS)
    live, at_rest = await site.session(), await site.session()
    await site.client.stop(ORG, at_rest)
    job = await site.job(live, "steady")
    watcher = site.watcher(job)
    starts = {name: part.starts for name, part in site.stack.parts.items()}
    boot = site.boot(live)
    sent: dict[str, tuple[Throw, bytes]] = {}
    async with reading(watcher), bus_of(site.stack, "operator") as bus:
        for number, batch in enumerate(collected()):
            names = {"live": live, "stopped": at_rest, "nobody": f"nobody-{number}"}
            for throw in batch:
                if throw.who != "nobody" and throw.type in ("session.stop", "session.resume"):
                    names = names | {throw.who: names["nobody"]}  # the two must stay as they are
                id = new_id()
                subject = f"cmd.{throw.role}.{ORG}.{names[throw.who]}.{id}"
                body = body_of(throw, subject, id)
                await bus.append(subject, body)
                sent[id] = (throw, body)
        answered = await answers(site, bus, sent)
        assert site.boot(live) == boot, "the recorder did not outlive the commands"
        assert {name: part.starts for name, part in site.stack.parts.items()} == starts, "a role did not outlive them"
        assert (await site.client.session(ORG, live)).ready
        await watcher.more()
        job.enough()

    for id, events in answered.items():
        throw, body = sent[id]
        assert len(events) == 1, f"{throw} has the answers {[event['type'] for event in events]}"
        if events[0]["type"] == "command.refused":
            data = events[0]["data"]
            assert data["code"].isupper(), data
            assert 3 < len(data["message"]) <= 4096, data
            assert data["code"] != "INTERNAL", (throw, body[:500], data)
    kinds = {event["type"] for events in answered.values() for event in events}
    assert "command.refused" in kinds
    assert len(kinds) > 3, "hardly anything that was thrown was in order"
    # It goes on as if nothing had been.
    result = await site.client.run(ORG, live, ["echo", "well"])
    assert result.stdout == b"well\n"
    await site.check_job(job, (watcher,))


async def test_what_names_nobody_is_a_dead_letter_or_refused_by_the_server(site: Site) -> None:
    async with bus_of(site.stack) as bus:
        id = new_id()
        letters = [f"cmd.spawner.{ORG}.{'s' * 65}.{id}", f"cmd.spawner.o%rg.s.{id}", f"cmd.spawner.{ORG}.s.not-a-uuid"]
        letters += [f"cmd.runnerd.{ORG}.s.not-a-uuid", f"cmd.nobody.{ORG}.s.{id}", "cmd.spawner", "cmd.runnerd"]
        for subject in letters:
            await bus.append(subject, b"{}")

        async def buried() -> bool:
            return {"dead." + subject.partition(".")[2] for subject in letters} <= set(await bus.subjects("DEAD", ">"))

        await until(buried, "every letter that names nobody is in DEAD")
        named = set(letters) | {"not-a-uuid"}
        assert not [stored for stored in await site.log() if any(name.encode() in stored.body for name in named)]
        with pytest.raises(SandreelError):
            await bus.append(f"cmd.spawner.{ORG}.s.{new_id()}", b"x" * (bus.max_payload + 1))
    assert (await site.client.create_session(ORG, "after-all", timeout_s=60)).ready


async def answers(site: Site, bus: JetStreamBus, sent: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The events that each command has caused, as soon as each has one."""
    found: dict[str, list[dict[str, Any]]] = {id: [] for id in sent}
    missing = set(sent)

    async def read() -> None:
        async with aclosing(bus.follow(STREAM, [f"evt.0.{ORG}.>"])) as items:
            async for item in items:
                for stored in item if isinstance(item, list) else ():
                    id = stored.body.partition(b'"causationid":"')[2][:36].decode(errors="replace")
                    if id in found:
                        found[id].append(json.loads(stored.body))
                        missing.discard(id)

    task = asyncio.create_task(read())
    try:
        await until(lambda: not missing, "every command has an answer", timeout_s=60)
    except AssertionError as error:
        raise AssertionError(f"{error}: {[(sent[id][0], sent[id][1][:300]) for id in list(missing)[:5]]}") from None
    finally:
        task.cancel()
    return {id: own(events) for id, events in found.items()}


def own(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what an exec does later, which names its start too."""
    return [event for event in events if event["type"] not in ("exec.started", "exec.exited", "exec.output")]
