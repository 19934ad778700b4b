"""From an `exec.start` to a running child: what is refused, where it runs, what it sees, how it is started."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from sandreel_core.contract import exec as c
from sandreel_core.contract.boot import BOOT_MARKER, EXEC_MARKER
from sandreel_core.environment import is_denied
from sandreel_core.errors import Refused
from sandreel_runnerd import terminal
from sandreel_runnerd.pipes import PIPE_BYTES, pipe
from sandreel_runnerd.secrets import check_names

# Where others share the CPU: so little that the agent does not notice, and enough that runnerd comes first (design §5).
NICE = 5
# Where the session has a share of its own nobody but runnerd comes before its execs, and that by far: beside 127 busy
# processes a line is 3 s old with 5, and 0.1 s with this (p99; docs/decisions/0022).
NICE_ALONE = 19
OOM_SCORE_RAISE = 200
MAX_OOM_SCORE = 1000  # proc(5)
# A rate is kept by making the child wait at a full pipe, so that pipe is small: one page.
THROTTLED_PIPE_BYTES = 4096
# What runnerd ignores, by Python or by whoever started it (nohup), is not ignored by a child.
_DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Recipe(Struct, frozen=True, kw_only=True):
    """What is started. `input` goes in first; `hold` keeps standard input open after it."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    input: bytes
    hold: bool
    tty: c.Terminal | None
    throttled: bool


class Spawned(Struct, frozen=True, kw_only=True):
    """A started process and runnerd's ends of its pipes. With a terminal, `stdin` and `stdout` are its master."""

    pid: int
    stdin: int | None
    stdout: int
    stderr: int | None


def input_bytes(text: str | None, base64: str | None) -> bytes:
    """The bytes of a start's or a write's input. Raises Refused(BAD_REQUEST) for both at once, broken base64,
    and more than 64 KiB."""
    if text is not None and base64 is not None:
        raise Refused("BAD_REQUEST", "give the input as text or as base64, not both")
    try:
        data = text.encode() if text is not None else b64decode(base64 or "", validate=True)
    except (Base64Error, ValueError) as error:
        raise Refused("BAD_REQUEST", f"the input cannot be decoded: {error}") from error
    if len(data) > c.MAX_STDIN_BYTES:
        raise Refused("BAD_REQUEST", f"the input has {len(data)} bytes; the limit is {c.MAX_STDIN_BYTES}")
    return data


def plan(start: c.Start, *, workspace: str, env: Mapping[str, str]) -> Recipe:
    """What to start, `env` being the whole environment. Raises Refused BAD_REQUEST, then INVALID_CWD.

    Blocking (it looks at the workspace). What is checked before, in this order: the id, whether it is in use, how
    many execs are live (behaviour §1).
    """
    if (start.argv is None) == (start.shell is None):
        raise Refused("BAD_REQUEST", "give exactly one of argv and shell")
    argv = start.argv if start.argv is not None else ["bash", "-lc", start.shell or ""]
    if not argv[0]:
        raise Refused("BAD_REQUEST", "argv[0] names no program")
    if any("\0" in part for part in argv) or any("\0" in value for value in env.values()):
        raise Refused("BAD_REQUEST", "an argument or a variable holds a NUL, which no program can be given")
    check_names(start.secret_env, start.env)
    data = input_bytes(start.stdin_text, start.stdin_base64)
    return Recipe(
        argv=argv,
        cwd=working_directory(workspace, start.cwd),
        env=dict(env),
        input=data,
        hold=start.stdin == "hold",
        tty=start.tty,
        throttled=start.rate_limit_bytes_per_s is not None,
    )


def working_directory(workspace: str, cwd: str | None) -> str:
    """The real path, which is the workspace's or below it; the workspace itself is taken as it is. Raises
    Refused(INVALID_CWD)."""
    if cwd is None:
        return workspace
    shown = cwd
    if "\0" in shown:
        raise Refused("INVALID_CWD", "the working directory holds a NUL")
    try:
        root = Path(workspace).resolve(strict=True)
        real = (root / shown).resolve(strict=True)
    except FileNotFoundError as error:
        raise Refused("INVALID_CWD", f"the working directory {shown[:200]!r} does not exist") from error
    except (OSError, RuntimeError) as error:
        raise Refused("INVALID_CWD", f"the working directory {shown[:200]!r} cannot be looked at") from error
    if not real.is_relative_to(root):
        raise Refused("INVALID_CWD", f"the working directory {shown[:200]!r} is outside the workspace")
    if not real.is_dir():
        raise Refused("INVALID_CWD", f"the working directory {shown[:200]!r} is not a directory")
    return str(real)


def environment(
    base: Mapping[str, str],
    store: Mapping[str, str],
    own: Mapping[str, str],
    *,
    boot_marker: str,
    exec_id: str,
    tty: bool = False,
) -> dict[str, str]:
    """runnerd's own < the session's < the exec's. Names that sandreel keeps are ignored in the last two, and
    nothing of runnerd's `SANDREEL_*` reaches the child but the two markers."""
    env = {BOOT_MARKER: boot_marker, EXEC_MARKER: exec_id}
    env |= {name: value for name, value in base.items() if not name.upper().startswith("SANDREEL_")}
    for layer in (store, own):
        env |= {name: value for name, value in layer.items() if not is_denied(name)}
    if tty:
        env.setdefault("TERM", "xterm-256color")
    return env


class Ends:
    """Both ends of what a child's standard streams will be. They are opened before it may start, in the time that the log
    takes to accept it; `close` closes what `spawn` has not given to somebody."""

    def __init__(self, recipe: Recipe) -> None:
        """Raises OSError, and leaves nothing open then."""
        self.stdin: int | None = None
        self.stdout = -1
        self.stderr: int | None = None
        self.file_actions: list[tuple[Any, ...]] = []
        self.mine, self.theirs = contextlib.ExitStack(), contextlib.ExitStack()
        try:
            if recipe.tty is not None:
                self._open_terminal(recipe.tty)
            else:
                self._open_pipes(recipe)
            self.file_actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.mine.close()
        self.theirs.close()

    def _open_pipes(self, recipe: Recipe) -> None:
        size = THROTTLED_PIPE_BYTES if recipe.throttled else PIPE_BYTES
        if recipe.hold or recipe.input:
            child_stdin, self.stdin = self._pipe(self.theirs, self.mine, size=None)
        else:
            child_stdin = os.open(os.devnull, os.O_RDONLY)
            self.theirs.callback(os.close, child_stdin)
        self.stdout, child_stdout = self._pipe(self.mine, self.theirs, size)
        self.stderr, child_stderr = self._pipe(self.mine, self.theirs, size)
        for at, fd in enumerate((child_stdin, child_stdout, child_stderr)):
            self.file_actions.append((os.POSIX_SPAWN_DUP2, fd, at))

    def _open_terminal(self, size: c.Terminal) -> None:
        self.stdout, slave = terminal.open_terminal(size.cols, size.rows)
        self.mine.callback(os.close, self.stdout)
        self.theirs.callback(os.close, slave)
        self.stdin = os.dup(self.stdout)
        self.mine.callback(os.close, self.stdin)
        # The leader of a new session that opens a terminal has it as its controlling one, so that Ctrl-C works.
        self.file_actions.append((os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0))
        self.file_actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]

    @staticmethod
    def _pipe(readers: contextlib.ExitStack, writers: contextlib.ExitStack, size: int | None) -> tuple[int, int]:
        reader, writer = pipe(size)
        readers.callback(os.close, reader)
        writers.callback(os.close, writer)
        return reader, writer


def spawn(recipe: Recipe, ends: Ends) -> Spawned:
    """Start it, in a session and process group of its own. Blocks for the half millisecond that it takes; to be
    called from one thread only. Raises OSError, whose text says what is wrong, and leaves nothing open then."""
    try:
        pid = _start(recipe, ends.file_actions)
        ends.mine.pop_all()
    finally:
        ends.close()
    return Spawned(pid=pid, stdin=ends.stdin, stdout=ends.stdout, stderr=ends.stderr)


def _start(recipe: Recipe, file_actions: list[tuple[Any, ...]]) -> int:
    """By posix_spawn: a tenth of the time of a fork of this interpreter, and the only way to give the child a clean
    signal mask (as PID 1 runnerd blocks signals, init.py) without running Python in it. What it cannot do is change
    the directory, so runnerd does for as long as it takes; nothing of runnerd goes by a relative path. A thread
    would gain nothing: CPython holds its lock over this call.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir(recipe.cwd)
        pid = os.posix_spawnp(
            _found(recipe.argv[0], recipe.env.get("PATH", os.defpath)),
            recipe.argv,
            recipe.env,
            file_actions=file_actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        with contextlib.suppress(OSError):  # it may be closed to us by now; what was started runs all the same
            os.fchdir(here)
        os.close(here)
    return pid


def _found(program: str, path: str) -> str:
    """Where the exec's own PATH has it, as a shell in it would find it: posix_spawnp looks in runnerd's, which has not the
    programs that ask for leases. As it is where it has a slash or is nowhere, which the start then says."""
    if "/" in program:
        return program
    candidates = (f"{place or '.'}/{program}" for place in path.split(os.pathsep))
    return next((each for each in candidates if os.access(each, os.X_OK) and not os.path.isdir(each)), program)  # noqa: PTH112


def _inheritable() -> list[int]:
    """Descriptors that somebody left open across exec, runnerd's parent for one: no child shall have them."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def started(start: c.Start, recipe: Recipe, pid: int) -> c.Started:
    """What the log says of a start that succeeded: all that was asked for, but no values."""
    return c.Started(
        argv=start.argv,
        shell=start.shell,
        cwd=recipe.cwd,
        pid=pid,
        tty=start.tty,
        env_names=sorted(name for name in start.env if not is_denied(name)),
        timeout_s=start.timeout_s,
        no_output_timeout_s=start.no_output_timeout_s,
        orphan_timeout_s=start.orphan_timeout_s,
        stdout_max_bytes=start.stdout_max_bytes,
        stderr_max_bytes=start.stderr_max_bytes,
        rate_limit_bytes_per_s=start.rate_limit_bytes_per_s,
        leftovers=start.leftovers,
    )


def raise_oom_score(pid: int) -> None:
    """So that the kernel ends the new process, or what it starts from now on, before it ends runnerd. A system that
    forbids it is left as it is."""
    with contextlib.suppress(OSError, ValueError):
        score = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDWR)
        try:
            raised = int(os.read(score, 16)) + OOM_SCORE_RAISE
            os.pwrite(score, str(min(MAX_OOM_SCORE, raised)).encode(), 0)
        finally:
            os.close(score)


def lower_priority(pid: int) -> None:
    """Of the exec's process group. Takes a millisecond right after a start (measured), so not then."""
    with contextlib.suppress(OSError):
        nice = NICE_ALONE if has_own_cpus() else NICE
        os.setpriority(os.PRIO_PGRP, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))


@functools.cache
def has_own_cpus(root: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether the control group that this process sees as the uppermost has a limit of CPU time: a container's, whose
    processes share it with nobody. Never a host's, which has none at the top."""
    for file in ("cpu.max", "cpu/cpu.cfs_quota_us"):  # version 2, version 1
        with contextlib.suppress(OSError):
            limit = (root / file).read_text().split()[:1]
            return bool(limit) and limit[0].isdecimal()
    return False


def why_not_started(recipe: Recipe, error: Exception) -> str:
    """One sentence for `exec.exited`."""
    what = recipe.cwd if isinstance(error, OSError) and error.filename == recipe.cwd else recipe.argv[0]
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"spawn failed: {what[:200]!r}: {reason}"
