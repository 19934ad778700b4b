"""What a runnerd says of itself, on `hb.<org>.<session>` or when it is asked, and what it is told over `req.`: drain, lift, hold, keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sandreel_core.contract.message import Count, Id, Instant
from sandreel_core.contract.requests import Reply, Request

MAX_KEYS_BYTES = 64 * 1024


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`idle_s` is the time since the last activity, by runnerd's monotonic clock (behaviour §1, lastActivity).

    `window_messages` and `spool_bytes` are what is not acknowledged yet, in memory and in the spool. The counts
    `sent_messages` (repeats included), `resends` (how often an exec's window was sent again) and `gaps` (how often an
    exec.gap took the place of what the server refused for good or has lost) are since the boot.
    """

    boot_id: str
    live_execs: Count
    idle_s: float
    spool_bytes: Count = 0
    held: bool = False
    commands_handled: Count = 0
    spool_capacity_bytes: Count = 0
    window_messages: Count = 0
    sent_messages: Count = 0
    resends: Count = 0
    gaps: Count = 0


class Health(Reply, frozen=True, kw_only=True):
    boot_id: str
    booted_at: Instant
    runnerd_version: str
    live_execs: list[str]
    idle_s: float
    spool_bytes: Count
    spool_capacity_bytes: Count
    window_messages: Count
    held: bool
    draining: bool
    connected_s: float
    rss_bytes: Count
    pid1: bool


class Drain(Request, frozen=True, kw_only=True):
    """Read no commands behind `commands_until`; lapses after 30 s without a SIGTERM."""

    commands_until: Count


class Drained(Reply, frozen=True, kw_only=True):
    """`idle_s` as in the heartbeat, at the moment of the answer; absent from a runnerd that does not say it."""

    live_execs: list[str]
    idle_s: float | None = None


class Hold(Request, frozen=True, kw_only=True):
    """Stop (or go on) reading output, so that children wait: the stream is nearly full. Lapses after 60 s."""

    hold: bool


class Keys(Request, frozen=True, kw_only=True):
    """Typed input. `offset`: how many bytes were typed before; what was taken already is skipped.

    writer  one keyboard: its offsets count its own bytes, so that several may type at once and none skips what another
            typed. A hole before `offset` is then no refusal: nothing is taken, and the answer says from where on.
            Without it all bytes count, and a hole is BAD_REQUEST. Nothing is typed by no bytes: a way to ask.
    """

    exec: Id
    offset: Count
    writer: Id | None = None
    base64: Annotated[str, Meta(max_length=MAX_KEYS_BYTES * 4 // 3 + 4)]


class KeysTaken(Reply, frozen=True, kw_only=True):
    """`offset`: how many bytes have been taken in all, of this writer's if it named itself. `others`: how many other
    writers have typed within the last minute."""

    offset: Count
    others: Count = 0
