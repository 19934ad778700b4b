"""`sandreel demo`: the main job from end to end, with everything killed once on the way."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli import demo_model, demo_turn
from sandreel_core.cli.demo_job import COPY, PACKAGE, Job
from sandreel_core.cli.demo_viewer import Account, Viewer
from sandreel_core.cli.interrupts import ending_signals
from sandreel_core.cli.stage import JsonStage, Stage
from sandreel_core.errors import Unavailable

if TYPE_CHECKING:
    from sandreel_core.client import Client
    from sandreel_core.embedded.stack import Stack

INTERRUPTED = 130
ORG, SESSION, EXEC = "default", "demo", "job-1"
_JOB_WITHIN_S = 120.0
_VIEWS_WITHIN_S = 30.0
_NATS_AWAY_S = 1.0
_SPEED = 10.0
# After how many lines of output (the tests print some 150) who is killed.
_VIEWER_AT, _SPAWNER_AT, _PROJECTOR_AT, _NATS_AT, _VIEWER_AGAIN_AT = 20, 20_000, 60_000, 100_000, 160_000

_CAUGHT_UP = "SELECT exec FROM reel.execs WHERE exec = 'job-1' AND phase = 'exited'"
_QUERIES = (
    ("the session", "SELECT session, phase, profile, backend, ready_at FROM reel.sessions"),
    (
        "the exec",
        "SELECT exec, phase, exit_code, stdout_lines, stdout_bytes, duration_ms FROM reel.execs WHERE exec = 'job-1'",
    ),
    (
        "lines that match a word",
        "SELECT line, text FROM reel.exec_lines WHERE exec = 'job-1' AND text LIKE '%burst 12345%' ORDER BY line LIMIT 8",
    ),
)


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="the main job from end to end, with everything killed once on the way",
        description="In a data directory of its own: start everything, run a chatty job in a session, kill the viewer,"
        " the spawner, the projector and the NATS server while it runs, and show that nothing was lost. Where the image with"
        " coding agents is built, one of them then mends a test before a stand-in of its model, while the bridge is killed.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, without the job's output")
    parser.add_argument(
        "--backend", choices=("process", "docker"), help="where the session runs (docker if it and its images are here)"
    )
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """0 when not a byte is missing, else 1."""
    from sandreel_core import log
    from sandreel_core.embedded.choice import choose
    from sandreel_core.embedded.part import Status
    from sandreel_core.embedded.stack import Stack

    stage, began = JsonStage(sys.stdout) if args.json else Stage(sys.stdout), time.monotonic()
    told = _ended_by_signals()
    choice, installation = None, None
    data = Path(tempfile.mkdtemp(prefix="sandreel-demo-"))
    try:
        with (data / "demo.log").open("w") as own_log:
            log.set_up("demo", stream=own_log)
            choice = await choose(os.environ, data, asked=args.backend)
            stage.title("Everything starts: NATS, Postgres and every role")
            stage.part(Status("backend", "ready", None, f"{choice.backend}: {choice.why}"))
            environ = dict(os.environ) | {"SANDREEL_STACK_BACKEND": choice.backend}
            async with (
                demo_model.standing_in(choice.backend, data / "model.log") as model,
                Stack(data, environ={**environ, **model.settings}, report=stage.part) as stack,
            ):
                try:
                    whole = await _play(stage, stack, contained=choice.backend == "docker", turn=model.lacks is None)
                    stage.title("Everything stops")
                finally:
                    installation = stack.place.keys().installation
    except asyncio.CancelledError:
        if not told.is_set():
            raise
        return INTERRUPTED
    finally:
        if installation is not None and choice is not None and choice.backend == "docker":
            await _erase(installation)
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
    stage.say("")
    verdict = "Nothing was lost." if whole else "SOMETHING IS WRONG: see above."
    stage.verdict(f"{verdict} {time.monotonic() - began:.0f} s in all.", good=whole)
    if model.lacks is not None:
        stage.say(f"No coding agent was shown at work: {model.lacks}")
    stage.say("Keep it running:   sandreel up          (in .venv/bin; data in ~/.local/share/sandreel)")
    stage.say("and from another terminal:  sandreel session create s1;  sandreel exec s1 -- sh -c 'echo hello'")
    return 0 if whole else 1


async def _erase(installation: str) -> None:
    """Nothing of the demo's sessions is left in the engine."""
    from sandreel_core.settings import load
    from sandreel_core.spawner.docker import Engine
    from sandreel_core.spawner.docker_census import erase
    from sandreel_core.spawner.docker_settings import DockerSettings

    async with Engine.open(load(DockerSettings).host) as engine:
        await erase(engine, installation)


def _ended_by_signals() -> asyncio.Event:
    """Ctrl-C and SIGTERM end the demo as its end does: nothing is left running. The event says that one came."""
    told, task, loop = asyncio.Event(), asyncio.current_task(), asyncio.get_running_loop()

    def tell() -> None:
        told.set()
        if task is not None:
            task.cancel()

    for number in ending_signals():
        loop.add_signal_handler(number, tell)
    return told


async def _play(stage: Stage, stack: Stack, *, contained: bool, turn: bool) -> bool:
    from sandreel_core.client import Client, ClientSettings
    from sandreel_core.settings import load

    settings = load(ClientSettings, environ={}, path=stack.client)
    async with Client.connect(settings, actor="demo") as client:
        stage.title("A session is created by a command message")
        began = time.monotonic()
        info = await client.create_session(ORG, SESSION)
        stage.say(f"  session {SESSION} is {info.phase} after {time.monotonic() - began:.2f} s")

        job = Job(sys.executable, contained=contained)
        stage.title(job.title)
        account = await _run(stage, stack, client, job)
        produced = await client.run(ORG, SESSION, ["bash", "-c", f"sha256sum < {COPY}; wc -lc < {COPY}"])
        if not produced.ok:
            raise Unavailable(f"the job's own copy cannot be read: {produced.stderr.decode(errors='replace')}")
        digest, _, lines, size = produced.text.split()
        stage.title("What the job produced, and what the viewer saw")
        good = [
            stage.compare("lines", int(lines), account.lines),
            stage.compare("bytes", int(size), account.bytes),
            stage.compare("sha256", digest, account.digest.hexdigest()),
            stage.compare("holes in ordinals and line numbers", [], account.holes),
            stage.compare("exit code", 0, account.exit_code),
        ]
        good.append(await _replay(stage, client, account))
        if turn:
            good.append(await demo_turn.play(stage, stack, client, ORG))
    await _queries(stage, stack, turn=turn)
    return all(good)


async def _run(stage: Stage, stack: Stack, client: Client, job: Job) -> Account:
    """Run it, and kill everything but its recorder on the way."""
    await client.files(ORG, SESSION).write(PACKAGE, await asyncio.to_thread(job.package))
    handle = await client.exec(ORG, SESSION, shell=job.shell, exec=EXEC, env=job.environment)
    try:
        with (stack.data / "logs" / "viewer.log").open("w") as complaints:
            viewer = Viewer(stack.data, SESSION, handle.id, show=stage.output, complaints=complaints)
            await _watch(stage, stack, viewer)
    except TimeoutError as error:
        raise Unavailable(f"the job has not ended after {_JOB_WITHIN_S:g} s") from error
    stage.end_output()
    return viewer.account


async def _watch(stage: Stage, stack: Stack, viewer: Viewer) -> None:
    async with asyncio.timeout(_JOB_WITHIN_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(viewer.run())
        tasks.create_task(_kills(stage, stack, viewer))


async def _kills(stage: Stage, stack: Stack, viewer: Viewer) -> None:
    await viewer.seen(_VIEWER_AT)
    _kill_viewer(stage, viewer)
    for lines, name in ((_SPAWNER_AT, "spawner"), (_PROJECTOR_AT, "projector")):
        await viewer.seen(lines)
        stage.kill(name, f"SIGKILL at line {viewer.account.lines:,}")
        await stack.parts[name].kill()
    await viewer.seen(_NATS_AT)
    stage.kill("nats", f"SIGKILL at line {viewer.account.lines:,}, away for {_NATS_AWAY_S:g} s: the job goes on")
    await stack.parts["nats"].kill(hold=True)
    await asyncio.sleep(_NATS_AWAY_S)
    stack.parts["nats"].release()
    await viewer.seen(_VIEWER_AGAIN_AT)
    _kill_viewer(stage, viewer)


def _kill_viewer(stage: Stage, viewer: Viewer) -> None:
    viewer.kill()
    stage.kill(
        "viewer", f"SIGKILL at line {viewer.account.lines:,}; attaches again after cursor {viewer.account.cursor}"
    )


async def _replay(stage: Stage, client: Client, seen: Account) -> bool:
    """The same exec from the stream, ten times as fast as it happened."""
    from contextlib import aclosing
    from hashlib import sha256

    from sandreel_core.client import Output

    stage.title(f"The same exec, replayed at {_SPEED:g}x from the stream")
    digest, lines, began = sha256(), 0, time.monotonic()
    async with aclosing(client.replay(ORG, SESSION, EXEC, speed=_SPEED)) as items:
        async for item in items:
            if isinstance(item, Output):
                digest.update(item.data)
                lines += item.count
                stage.progress(f"replayed {lines:,} lines")
    stage.end_output()
    stage.say(f"  {lines:,} lines in {time.monotonic() - began:.1f} s")
    return stage.compare("sha256", seen.digest.hexdigest(), digest.hexdigest())


async def _queries(stage: Stage, stack: Stack, *, turn: bool) -> None:
    stage.title("The views, with SQL")
    deadline = time.monotonic() + _VIEWS_WITHIN_S
    while EXEC not in await _sql(stack, demo_turn.CAUGHT_UP if turn else _CAUGHT_UP):
        if time.monotonic() > deadline:
            raise Unavailable(f"the views have not caught up after {_VIEWS_WITHIN_S:g} s")
        await asyncio.sleep(0.2)
    for what, statement in (*_QUERIES, *((demo_turn.QUERY,) if turn else ())):
        stage.say(f"  {what}: {statement}")
        stage.block(await _sql(stack, statement))


async def _sql(stack: Stack, statement: str) -> str:
    """What `sandreel sql` prints."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sandreel_core.cli", "sql", "--data", str(stack.data), statement),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    text = output.decode(errors="replace").rstrip()
    if child.returncode:
        raise Unavailable(f"sandreel sql: {text}")
    return text
