"""Messages about an exec: one program run by runnerd inside a session, recorded byte for byte."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sandreel_core.contract.message import MAX_INTEGER, Command, Count, Event, Id, Ordinal, Part, Seconds, Sentence
from sandreel_core.contract.session import Env

Stream = Literal["stdout", "stderr"]
MAX_STDIN_BYTES = 64 * 1024  # one write; behaviour §1, "stdin line 64 KiB"
# After so many blocks of output it is said how much there was: 0.4 % more messages, and one answer of the server holds
# what a reader needs that comes in the middle.
PROGRESS_BLOCKS = 256
Text = Annotated[str, Meta(max_length=MAX_STDIN_BYTES)]
Base64 = Annotated[str, Meta(max_length=88_000)]
SignalName = Annotated[str, Meta(pattern=r"^SIG[A-Z0-9]{2,12}$(?!\n)")]
Cells = Annotated[int, Meta(ge=1, le=10_000)]


class Terminal(Part, frozen=True, kw_only=True):
    """A pseudo-terminal of this size, in character cells."""

    cols: Cells = 80
    rows: Cells = 24


class SecretRef(Part, frozen=True, kw_only=True):
    """Where a value comes from at the start of the exec: never the value itself."""

    role: Literal["broker", "bridge"]
    lease: Id


class ExecCommand(Command, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "exec"
    role: ClassVar[str] = "runnerd"
    exec: Id


class Start(ExecCommand, frozen=True, kw_only=True):
    """Run a program: exactly one of `argv` and `shell` (`bash -lc`).

    cwd                   absolute below the workspace, or relative to it; must exist
    stdin                 `close`: EOF after the initial bytes; `hold`: stays open for `exec.write_stdin`
    tty                   a pseudo-terminal instead of three pipes; all output is then `stdout`. Its input stays open for
                          keys also with `close`: who wants it to end types Ctrl-D
    timeout_s             wall clock; then SIGTERM, and SIGKILL 5 s later
    no_output_timeout_s   the same when nothing was printed for so long
    orphan_timeout_s      the same when no `exec.keepalive` came for so long (while runnerd is connected)
    *_max_bytes           the stream is cut at exactly so many bytes, and an event says so; absent = all
    rate_limit_bytes_per_s  the child waits, and an event says so; absent = as fast as it goes
    leftovers             what happens to processes that outlive it
    """

    type: ClassVar[str] = "exec.start"
    argv: Annotated[list[str], Meta(min_length=1, max_length=4096)] | None = None
    shell: Annotated[str, Meta(min_length=1, max_length=512 * 1024)] | None = None
    cwd: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    env: Env = {}
    secret_env: Annotated[dict[str, SecretRef], Meta(max_length=64)] = {}
    stdin: Literal["close", "hold"] = "close"
    stdin_text: Text | None = None
    stdin_base64: Base64 | None = None
    tty: Terminal | None = None
    timeout_s: Seconds | None = None
    no_output_timeout_s: Seconds | None = None
    orphan_timeout_s: Seconds | None = None
    stdout_max_bytes: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None = None
    stderr_max_bytes: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None = None
    rate_limit_bytes_per_s: Annotated[int, Meta(ge=1024, le=MAX_INTEGER)] | None = None
    leftovers: Literal["keep", "kill"] = "keep"


class WriteStdin(ExecCommand, frozen=True, kw_only=True):
    """Append to the program's input (at most 64 KiB), or end it; one of `text` and `base64`, or `eof` alone."""

    type: ClassVar[str] = "exec.write_stdin"
    text: Text | None = None
    base64: Base64 | None = None
    eof: bool = False


class Signal(ExecCommand, frozen=True, kw_only=True):
    """Send a signal to the exec's process group."""

    type: ClassVar[str] = "exec.signal"
    signal: SignalName


class Cancel(ExecCommand, frozen=True, kw_only=True):
    """SIGTERM to the group, SIGKILL 5 s later if it is still there."""

    type: ClassVar[str] = "exec.cancel"


class Resize(ExecCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "exec.resize"
    cols: Cells
    rows: Cells


class Keepalive(ExecCommand, frozen=True, kw_only=True):
    """Its owner still wants it: winds the orphan timer up again."""

    type: ClassVar[str] = "exec.keepalive"


class ExecEvent(Event, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "exec"


class Accepted(ExecEvent, frozen=True, kw_only=True):
    """n = 1. From here on the exec ends in exactly one `exec.exited` or `exec.lost`."""

    type: ClassVar[str] = "exec.accepted"
    boot_id: str


class Started(ExecEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "exec.started"
    argv: list[str] | None = None
    shell: str | None = None
    cwd: str
    pid: int
    tty: Terminal | None = None
    env_names: list[str] = []
    timeout_s: float | None = None
    no_output_timeout_s: float | None = None
    orphan_timeout_s: float | None = None
    stdout_max_bytes: int | None = None
    stderr_max_bytes: int | None = None
    rate_limit_bytes_per_s: int | None = None
    leftovers: Literal["keep", "kill"] = "keep"


class Output(ExecEvent, frozen=True, kw_only=True):
    """One block of output, as it was read from one pipe.

    line    number (from 1, per stream) of the line that holds the block's first byte
    count   newlines in it: the next block's `line` is `line + count`
    text    the bytes, where they are UTF-8; else `base64`
    eol     the block ends with a newline
    """

    type: ClassVar[str] = "exec.output"
    stream: Stream
    line: Ordinal
    count: Count
    text: str | None = None
    base64: str | None = None
    eol: bool = False


class Progress(ExecEvent, frozen=True, kw_only=True):
    """What it has printed so far, by stream, after every PROGRESS_BLOCKS blocks of output: who comes late to a long exec
    that runs need not read it from its beginning."""

    type: ClassVar[str] = "exec.progress"
    lines: dict[Stream, Count]
    bytes: dict[Stream, Count]


class StdinWritten(ExecEvent, frozen=True, kw_only=True):
    """`offset`: typed input only, how many bytes of it have been taken in all."""

    type: ClassVar[str] = "exec.stdin_written"
    bytes: Count
    eof: bool = False
    offset: Count | None = None


class Signalled(ExecEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "exec.signalled"
    signal: str
    why: Literal["asked", "cancelled", "stopped", "deadline", "no_output", "orphaned"]


class Resized(ExecEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "exec.resized"
    cols: int
    rows: int


class Truncated(ExecEvent, frozen=True, kw_only=True):
    """The stream was cut at exactly `limit_bytes`; what the program prints from here on is not kept."""

    type: ClassVar[str] = "exec.truncated"
    stream: Stream
    limit_bytes: Ordinal


def writer_of(source: str) -> str:
    """The boot id in the `source` of what a runnerd writes, `/runnerd/<org>/<session>/<boot id>`."""
    return source.rpartition("/")[2]


class Gap(ExecEvent, frozen=True, kw_only=True):
    """Events `from_n` to `to_n` will never come. Its own n is `to_n + 1`."""

    type: ClassVar[str] = "exec.gap"
    from_n: Ordinal
    to_n: Ordinal
    why: Sentence


class Throttled(ExecEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "exec.throttled"
    bytes_per_s: Ordinal


ExitReason = Literal["exited", "cancelled", "stopped", "deadline", "no_output", "orphaned", "spawn_failed"]


class Exited(ExecEvent, frozen=True, kw_only=True):
    """The end, as the kernel told it. `exit_code` is null when a signal ended it (or it never started)."""

    type: ClassVar[str] = "exec.exited"
    exit_code: int | None
    signal: str | None = None
    reason: ExitReason
    message: Sentence | None = None
    oom: bool = False
    duration_ms: Count
    lines: dict[Stream, Count] = {}
    bytes: dict[Stream, Count] = {}
    masked: bool = False
    cpu_ms: Count | None = None
    max_rss_bytes: Count | None = None
    leftovers: Count = 0


class Lost(ExecEvent, frozen=True, kw_only=True):
    """Its recorder is confirmed dead: how it ended is not known and is not made up. n = last_n + 1."""

    type: ClassVar[str] = "exec.lost"
    boot_id: str | None = None
    last_n: Count
    cause: Literal["oom", "container_exit", "runnerd_died", "node_gone"]
