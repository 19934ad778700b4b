"""`session show --at`: how long it takes to tell how a session of 10,000 events stood; beside a bare pull of those events."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from bench import bare
from bench.figure import Figure, percentile
from bench.rig import ORG, Rig
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_runnerd.tally import Tally

EVENTS = 10_000
EXECS = 20
ROUNDS = 40


async def as_of(rig: Rig) -> list[Figure]:
    """How a session of 10,000 events stood at a cursor; beside a bare pull of those events.

    Two sessions of as many events, a line a message: twenty execs, the last of which goes on; and one exec alone that
    goes on, the worst case. Asked for as of now and as of random cursors.
    """
    figures = []
    async with rig.without("projector"):
        for name, execs in (("20 execs", EXECS), ("one exec that goes on", 1)):
            figures.append(await _measure(rig, name, await rig.session(f"as-of-{execs}"), execs))
    return figures


async def _measure(rig: Rig, name: str, session: str, execs: int) -> Figure:
    subjects = rig.client.subjects(ORG, session)
    for number in range(execs):
        await _write(rig, subjects, f"x{number}", EVENTS // execs, ends=number < execs - 1)
    events = sum((await rig.client.bus.subjects(subjects.stream, subjects.all_events())).values())
    state = await rig.client.bus.state(subjects.stream)
    dice, ours, early, pulled = random.Random(1), [], [], []
    for _ in range(ROUNDS):
        at = Cursor(state.epoch, subjects.partition, state.last_sequence - dice.randrange(EVENTS))
        began = time.perf_counter()
        told = await rig.client.state_at(ORG, session)
        ours.append(time.perf_counter() - began)
        assert [len(told.sessions[0].execs), len(told.sessions[0].running)] == [execs, 1]
        began = time.perf_counter()
        await rig.client.state_at(ORG, session, at=at)
        early.append(time.perf_counter() - began)
        pulled.append(await _pull(rig, subjects, events))
    return Figure(
        *(f"state of a session of 10,000 events, {name}, p50", "ms", percentile(ours, 0.5) * 1e3, 150),
        detail={
            "events": float(events),
            "p99 ms": percentile(ours, 0.99) * 1e3,
            "as of random cursors, p50 ms": percentile(early, 0.5) * 1e3,
            "as of random cursors, p99 ms": percentile(early, 0.99) * 1e3,
            "bare pull of those events, p50 ms": percentile(pulled, 0.5) * 1e3,
        },
    )


async def _write(rig: Rig, subjects: SessionSubjects, exec_id: str, events: int, *, ends: bool) -> None:
    """What runnerd would, at the pace of the server."""
    lines = events - (3 if ends else 2)
    log: list[x.ExecEvent] = [x.Accepted(boot_id="1-1"), x.Started(argv=["print"], cwd="/workspace", pid=7)]
    tally = Tally()
    for n in range(1, lines + 1):
        text = f"line {n} of {lines}".ljust(99, ".") + "\n"
        log.append(block := x.Output(stream="stdout", line=n, count=1, text=text, eol=True))
        if (progress := tally.add(block)) is not None:
            log.append(progress)
    if ends:
        log.append(x.Exited(exit_code=0, reason="exited", duration_ms=1, lines={"stdout": lines}))
    subject = subjects.exec(exec_id)
    publisher = await bare.Publisher(rig.bare).start()
    for n, event in enumerate(log, 1):
        sealed = seal(event, id=f"{exec_id}-{n}", source="/bench", subject=subject, time=datetime.now(UTC), n=n)
        await publisher.publish(subject, encode(sealed))
    await publisher.drain()


async def _pull(rig: Rig, subjects: SessionSubjects, events: int) -> float:
    seen = 0

    def on_body(_: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen == events

    began = time.perf_counter()
    await bare.pull(rig.bare, subjects.all_events(), on_body, stream=subjects.stream)
    return time.perf_counter() - began
