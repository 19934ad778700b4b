"""`make soak`: random kills of everything for a given time, while sessions run chatty execs that are watched; a verdict.

    python -m tests.system.soak --seconds 600 [--seed S] [--sessions 3]

Exit code 1 on any violation. What is killed: viewers, spawner, projector, NATS, Postgres (one or two at a time, at once or
away for up to three times the duplicate window) and the sessions' own recorders. Meanwhile the views are rebuilt again and
again, and those that take long are killed: the next goes on with what is there.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sandreel_core import log
from sandreel_core.errors import Refused, SandreelError, Unavailable
from tests.support.system import ORG, Site, left_of, open_site, patiently
from tests.support.system_job import EXIT_CODE, STREAMS, Job
from tests.support.system_log import Told
from tests.support.system_readers import Account, reading
from tests.system.soak_rebuilds import Rebuilds

PARTS = ("spawner", "projector", "nats", "postgres")
GREATEST_AWAY_S = 3.0
# A quiet stretch between two kills; then at most so long.
QUIET_S = (0.2, 1.5)


@dataclass
class Tally:
    """What was done, and what was wrong with it."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def expect(self, good: bool, what: str) -> None:
        self.counts["checks"] += 1
        if not good:
            self.violations.append(what)


@dataclass
class Run:
    """One exec with its readers, until it has ended."""

    job: Job
    readers: list[Account]
    recorder_killed: bool


class Soak:
    def __init__(
        self, site: Site, seed: int, tally: Tally, say: Callable[[str], None], *, waves: Sequence[int]
    ) -> None:
        """`waves`: of how many lines a job's wave may be."""
        self._site = site
        self._seed = seed
        self._waves = waves
        self._tally = tally
        self._say = say
        self._runs: list[Run] = []
        self._viewers: list[Callable[[], None]] = []

    async def run(self, seconds: float, sessions: int) -> None:
        deadline = time.monotonic() + seconds
        rebuilds = Rebuilds(self._site, self._seed, self._tally.counts, self._tally.violations.append)
        rebuilding = asyncio.ensure_future(rebuilds.run())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(sessions):
                    group.create_task(self._session(number, deadline))
                group.create_task(self._kill(deadline))
        finally:
            rebuilding.cancel()
            await asyncio.wait([rebuilding])
        if not rebuilding.cancelled():
            rebuilding.result()
        await rebuilds.last()
        await self._verdict()

    async def _kill(self, deadline: float) -> None:
        dice, site = random.Random(f"{self._seed} kills"), self._site
        while time.monotonic() < deadline:
            await asyncio.sleep(dice.uniform(*QUIET_S))
            if dice.random() < 0.25:
                for kill in self._viewers:
                    kill()
                    self._tally.counts["viewers killed"] += 1
                continue
            victims = dice.sample(PARTS, dice.choice((1, 1, 2)))
            away_s = dice.choice((0.0, 0.0, dice.uniform(0, GREATEST_AWAY_S)))
            for victim in victims:
                self._tally.counts[f"{victim} killed"] += 1
            if away_s:
                await site.kill_and_hold(*victims)
                await asyncio.sleep(away_s)
                await site.release(*victims)
            else:
                await site.kill(*victims)

    async def _session(self, number: int, deadline: float) -> None:
        """Execs one after another in one session; now and then its recorder is killed, and the session resumed."""
        site, dice = self._site, random.Random(f"{self._seed} session {number}")
        session = f"soak-{number}"
        await self._ensure(session, create=True)
        turn = 0
        while time.monotonic() < deadline:
            turn += 1
            await self._exec(session, f"job-{turn}", dice)
        self._say(f"  session {session}: {turn} execs")
        await patiently(lambda: site.client.session(ORG, session))

    async def _exec(self, session: str, name: str, dice: random.Random) -> None:
        site, kill_recorder = self._site, dice.random() < 0.2
        shape = {"wave": dice.choice(self._waves), "pause_s": dice.choice((0.01, 0.03)), "seed": dice.randrange(99)}
        try:
            job = await patiently(lambda: self._start(session, name, shape))
        except Refused as refused:
            self._tally.violations.append(f"{session}/{name} was refused: {refused}")
            return
        watcher, attached = site.watcher(job), site.attached(job)
        self._viewers.append(attached.kill)
        run = Run(job, [watcher, attached], kill_recorder)
        self._runs.append(run)
        try:
            async with reading(watcher, attached):
                await asyncio.sleep(dice.uniform(1, 4))
                if kill_recorder:
                    self._tally.counts["recorders killed"] += 1
                    boot = site.kill_runnerd(session)
                else:
                    job.enough()
                await asyncio.gather(watcher.over(timeout_s=120), attached.over(timeout_s=120))
        finally:
            self._viewers.remove(attached.kill)
        self._tally.counts["execs"] += 1
        if kill_recorder:
            left = left_of(boot)
            self._tally.expect(left == [], f"of {session}/{name} are left {left}")
            await self._ensure(session, create=False)

    async def _start(self, session: str, name: str, shape: Mapping[str, float]) -> Job:
        """It may have been started by an attempt whose answer did not come."""
        try:
            return await self._site.job(session, name, **shape)
        except Refused as refused:
            if refused.code != "DUPLICATE_EXEC":
                raise
            return Job(name, session, self._site.folder(session).workspace)

    async def _ensure(self, session: str, *, create: bool) -> None:
        client = self._site.client

        async def ready() -> None:
            try:
                if create:
                    await client.create_session(ORG, session, timeout_s=120)
                else:
                    await self._site.stopped(session)
                    await client.resume(ORG, session, timeout_s=120)
            except Refused as refused:
                if refused.code != "SESSION_EXISTS":
                    raise
            if not (await client.session(ORG, session)).ready:
                raise Unavailable("not ready yet")

        await patiently(ready, timeout_s=180)

    async def _verdict(self) -> None:
        """Every byte, ordinal and end of every exec, and the views against the whole log."""
        tally = self._tally
        try:
            told = await self._site.check()
        except AssertionError as error:
            tally.violations.append(f"log or views: {str(error)[:500]}")
            return
        tally.counts["events"] = sum(exec_.last_n for exec_ in told.values())
        for run in self._runs:
            subject = self._site.client.subjects(ORG, run.job.session).exec(run.job.id)
            self._check(run, told.get(subject) or Told(subject))

    def _check(self, run: Run, told: Told) -> None:
        tally, job = self._tally, run.job
        name = f"{job.session}/{job.id}"
        end = ["exec.lost"] if run.recorder_killed else ["exec.exited"]
        tally.expect(told.ends == end, f"{name} ended with {told.ends}")
        tally.expect(run.recorder_killed or told.exit_code == EXIT_CODE, f"{name} exited with {told.exit_code}")
        tally.expect(job.runs() == 1, f"{name} ran {job.runs()} times")
        for stream in STREAMS:
            printed, stored = job.printed(stream), bytes(told.data[stream])
            tally.counts["bytes"] += len(stored)
            whole = printed.startswith(stored) if run.recorder_killed else printed == stored
            tally.expect(whole, f"{name}: {len(stored)} bytes of {stream} are stored, {len(printed)} were printed")
            for reader in run.readers:
                tally.expect(bytes(reader.data[stream]) == stored, f"{name}: a reader's {stream} is not what is stored")
        for reader in run.readers:
            tally.expect(not reader.wrong, f"{name}: {reader.wrong[:3]}")
            tally.expect(reader.last_n == told.last_n, f"{name}: a reader saw {reader.last_n} of {told.last_n} events")


async def soak(seconds: float, seed: int, *, sessions: int = 3, say: Callable[[str], None]) -> Tally:
    """Runs it and says the verdict."""
    tally = Tally()
    say(f"soak of {seconds:g} s with seed {seed}: {sessions} sessions")
    began = time.monotonic()
    try:
        async with open_site() as site:
            # The verdict holds the whole log in memory, several times: a long soak prints less.
            waves = (1, 50, 500) if seconds <= 120 else (1, 10, 60)
            await Soak(site, seed, tally, say, waves=waves).run(seconds, sessions)
    except* (AssertionError, SandreelError, TimeoutError) as group:
        tally.violations.append(f"it did not come to its end: {_leaves(group)}")
    counts = ", ".join(f"{count} {what}" for what, count in sorted(tally.counts.items()))
    for violation in tally.violations[:20]:
        say(f"  VIOLATION {violation}")
    verdict = "NOTHING WAS LOST" if not tally.violations else f"{len(tally.violations)} VIOLATIONS"
    say(f"{verdict} in {time.monotonic() - began:.0f} s (seed {seed}): {counts}")
    return tally


def _leaves(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [f"{type(error).__name__}: {str(error)[:300]}"]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--sessions", type=int, default=3)
    args = parser.parse_args()
    log.set_up("soak", "ERROR")
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 32)
    tally = asyncio.run(soak(args.seconds, seed, sessions=args.sessions, say=_say))
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
