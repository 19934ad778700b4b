"""What a runnerd asks the spawner over `req.`: who it is (bootstrap, renew), its commands (feed), and what the log holds (log)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sandreel_core.contract.message import Count, Id
from sandreel_core.contract.requests import Reply, Request
from sandreel_core.contract.session import Limits, WorkspacePath


class Bootstrap(Request, frozen=True, kw_only=True):
    """runnerd presents itself. The token binds to the first key that comes with it. `workspace`: see `session.Ready`."""

    boot_id: str
    token: str
    runnerd_version: str
    contract_version: int
    public_keys: dict[str, str] = {}
    workspace: WorkspacePath | None = None


class Bootstrapped(Reply, frozen=True, kw_only=True):
    """`session.ready` is in the log. `env` is the folded environment; commands come from `feed`, which begins
    behind `commands_after`; `epoch` is that of the session's partition, `workspace_last` the last sequence of the
    session's subject `workspace` (0: nothing stands there), from which runnerd, which may not read the log, goes on.
    `user_jwt`: who it is from now on, where NATS knows its users by JWTs."""

    epoch: str
    partitions: int
    env: dict[str, str]
    limits: Limits
    commands_after: Count
    feed: str
    hold: bool = False
    workspace_last: Count | None = None
    user_jwt: str | None = None


class Renew(Request, frozen=True, kw_only=True):
    """The boot's NATS identity is about to end, or has ended. The token and the keys of the bootstrap."""

    boot_id: str
    token: str
    public_keys: dict[str, str]


class Renewed(Reply, frozen=True, kw_only=True):
    user_jwt: str


class MakeFeed(Request, frozen=True, kw_only=True):
    """Make the session's command feed again, behind this sequence of CMD. Denied for a boot that is over."""

    boot_id: str
    after: Count


class FeedMade(Reply, frozen=True, kw_only=True):
    feed: str


class AskLog(Request, frozen=True, kw_only=True):
    """What does the log hold of these execs? Asked on every reconnect, before anything is sent again."""

    boot_id: str
    execs: Annotated[list[Id], Meta(max_length=10_000)] = []


class ExecHead(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`boot_id`: who accepted it (absent: nobody), `started_by`: for which command. `last_n`: the greatest ordinal with
    no hole before it."""

    boot_id: str | None = None
    started_by: str | None = None
    last_n: Count = 0
    ended: bool = False


class LogHead(Reply, frozen=True, kw_only=True):
    """`commands_restored_at`: where CMD ended when it came back from a backup, if that is what gave the session's partition
    its `epoch`: what a runnerd has handled behind it is gone, and new commands have those numbers."""

    epoch: str
    commands_last: Count
    commands_restored_at: Count | None = None
    execs: dict[str, ExecHead] = {}
