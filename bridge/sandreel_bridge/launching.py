"""The start of an agent's program: what it is run with, what is placed in the workspace before, and the one command."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sandreel_bridge.adapters.adapter import WORKDIR, Gateway, Launch, RunSpec
from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.attempt import Attempt, message_uuid
from sandreel_core.client import Client, Files, Outcome
from sandreel_core.client.handle import stdin_fields
from sandreel_core.contract.exec import MAX_STDIN_BYTES, SecretRef, Start, WriteStdin
from sandreel_core.contract.files import FileChunk, ReadFile
from sandreel_core.contract.session import WORKSPACE
from sandreel_core.contract.turn import Attachment, TurnRequested
from sandreel_core.errors import NotFound, Refused

FETCH_WITHIN_S = 120.0


def run_spec(attempt: Attempt, *, gateway_url: str, browser: bool) -> RunSpec:
    """How the attempt's program is run."""
    gateway = Gateway(base_url=gateway_url, key=SecretRef(role="bridge", lease=attempt.exec))
    preparing = attempt.preparing
    spec = spec_of(attempt.request, gateway, model=preparing.model, browser=browser, seed=attempt.exec)
    workspace = preparing.workspace or WORKSPACE
    return replace(
        spec,
        resume=preparing.agent_session_id,
        workspace=workspace,
        workdir=workdir_of(attempt.request.workdir, workspace),
    )


def spec_of(request: TurnRequested, gateway: Gateway, *, model: str | None, browser: bool, seed: str) -> RunSpec:
    """How a fresh conversation of it would be run."""
    return RunSpec(
        prompt=request.prompt or "",
        gateway=gateway,
        model=model,
        max_turns=request.max_turns,
        permission_mode=request.permission_mode,
        system_prompt_append=request.system_prompt_append,
        workdir=workdir_of(request.workdir, WORKSPACE),
        mcp=browser,
        message_uuid=message_uuid(seed),
    )


def workdir_of(asked: str | None, workspace: str) -> str:
    """Absolute, in a session whose programs find the workspace there."""
    return f"{workspace}/{below(asked or WORKDIR)}".rstrip("/")


def below(path: str) -> str:
    """Relative to the workspace, below which a path that was asked for is (`turn_decision`)."""
    return path.removeprefix(WORKSPACE).lstrip("/") if path.startswith("/") else path


async def place(files: Files, attachments: Sequence[Attachment]) -> None:
    """Every attachment is where it should be, and is what it should be. Raises Refused (ATTACHMENT) with the path and the problem,
    Unavailable."""
    for each in attachments:
        try:
            await _place(files, each)
        except (Refused, NotFound) as error:
            raise Refused("ATTACHMENT", f"{each.path[:200]!r}: {error}") from error


async def _place(files: Files, attachment: Attachment) -> None:
    path = below(attachment.path)
    if attachment.url is not None:
        await files.fetch(attachment.url, path, sha256=attachment.sha256, timeout_s=FETCH_WITHIN_S)
        return
    asked = ReadFile(path=path, pin="", length=1, sha256=attachment.sha256 is not None)
    found = await files.ask("read_file", asked, FileChunk)
    if attachment.sha256 is not None and found.sha256 != attachment.sha256:
        raise Refused("CHECKSUM", f"its SHA-256 is {found.sha256}, not {attachment.sha256}")


async def prepare_files(files: Files, launch: Launch) -> None:
    """The directory that it runs in, and what its program reads as it starts. Raises Refused, Unavailable."""
    await files.make_directory(launch.cwd)
    for path, data in launch.files.items():
        await files.write(path, data)


def launch_of(agent: str, spec: RunSpec) -> Launch:
    """Raises Malformed for what the agent's program cannot do."""
    return adapter(agent).launch(spec)


async def start(client: Client, attempt: Attempt, launch: Launch) -> Outcome:
    """Send it, or find out how it was answered. Raises Refused, Unavailable."""
    text, encoded = stdin_fields(launch.stdin[:MAX_STDIN_BYTES])
    hold = launch.hold_stdin or len(launch.stdin) > MAX_STDIN_BYTES
    command = Start(
        exec=attempt.exec,
        argv=launch.argv,
        cwd=launch.cwd,
        env=launch.env,
        secret_env=launch.secret_env,
        stdin="hold" if hold else "close",
        stdin_text=text,
        stdin_base64=encoded,
        leftovers="kill",
    )
    name = attempt.name
    return await client.send(
        name.org, name.session, command, command_id=attempt.start_id, correlation_id=attempt.correlation_id
    )


async def write_rest(client: Client, attempt: Attempt, launch: Launch) -> None:
    """What of its first input does not fit into the start, in pieces that each are written once. Raises Refused, Unavailable."""
    name = attempt.name
    for offset in range(MAX_STDIN_BYTES, len(launch.stdin), MAX_STDIN_BYTES):
        text, encoded = stdin_fields(launch.stdin[offset : offset + MAX_STDIN_BYTES])
        last = offset + MAX_STDIN_BYTES >= len(launch.stdin) and not launch.hold_stdin
        command = WriteStdin(exec=attempt.exec, text=text, base64=encoded, eof=last)
        await client.send(name.org, name.session, command, command_id=attempt.input_id(offset))
