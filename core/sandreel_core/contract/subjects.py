"""Subjects: the one place where they are built and taken apart.

evt.<p>.<org>.<session>.<aggregate>[.<id>]     events; exec and turn carry an id
cmd.<role>.<org>.<session>.<command id>        durable commands
req.<role>.<org>.<session>.<verb>              request/reply, stored nowhere
hb.<org>.<session>                             runnerd's heartbeat, stored nowhere
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args
from zlib import crc32

from msgspec import Struct

from sandreel_core.errors import Malformed
from sandreel_core.ids import check_command_id, check_id, check_org

Role = Literal["spawner", "runnerd", "broker", "bridge"]
ROLES: tuple[str, ...] = get_args(Role)
KEYED = ("exec", "turn")
SINGLE = ("session", "workspace", "credential", "usage", "egress", "command")
# JetStream's own requests, and what they are called in accounts that import some of them (`permissions`): a session's pull
# from its command feed, the door through which a service of an organisation asks, and its pull from a reader's consumer,
# whose name is READER and 128 random bits.
JETSTREAM = "$JS.API"
FEED, DOOR, PULL, READER = "feed", "api", "pull", "f"
CMD = "CMD"
DEAD = "DEAD"


def partition_of(session: str, partitions: int) -> int:
    """The partition of a session, fixed for the life of an installation."""
    return crc32(session.encode()) % partitions


def reel(partition: int) -> str:
    """The name of a partition's stream."""
    return f"REEL-{partition}"


class EventSubject(Struct, frozen=True):
    """A parsed `evt.` subject. `key` is the exec's or turn's id, empty for the other aggregates."""

    partition: int
    org: str
    session: str
    aggregate: str
    key: str = ""

    def __str__(self) -> str:
        base = f"evt.{self.partition}.{self.org}.{self.session}.{self.aggregate}"
        return f"{base}.{self.key}" if self.key else base


class CommandSubject(Struct, frozen=True):
    role: str
    org: str
    session: str
    command_id: str

    def __str__(self) -> str:
        return f"cmd.{self.role}.{self.org}.{self.session}.{self.command_id}"


class SessionSubjects(Struct, frozen=True):
    """Builds every subject of one session. Raises Malformed on construction when a name is out of range."""

    org: str
    session: str
    partitions: int = 1

    def __post_init__(self) -> None:
        check_org(self.org)
        check_id("session", self.session)

    @property
    def partition(self) -> int:
        return partition_of(self.session, self.partitions)

    @property
    def stream(self) -> str:
        return reel(self.partition)

    def event(self, aggregate: str, key: str = "") -> str:
        """The subject of one aggregate. `key` is required for exec and turn and forbidden elsewhere."""
        if (aggregate in KEYED) is not bool(key) or aggregate not in KEYED + SINGLE:
            raise Malformed(f"aggregate {aggregate!r} with key {key!r} is no subject")
        if key:
            check_id(aggregate, key)
        return str(EventSubject(self.partition, self.org, self.session, aggregate, key))

    def exec(self, exec_id: str) -> str:
        return self.event("exec", exec_id)

    def all_events(self) -> str:
        return f"evt.{self.partition}.{self.org}.{self.session}.>"

    def command(self, role: str, command_id: str) -> str:
        if role not in ROLES:
            raise Malformed(f"role {role!r} is none of {', '.join(ROLES)}")
        return str(CommandSubject(role, self.org, self.session, check_command_id(command_id)))

    def commands(self, role: str) -> str:
        return f"cmd.{role}.{self.org}.{self.session}.*"

    def request(self, role: str, verb: str) -> str:
        return f"req.{role}.{self.org}.{self.session}.{verb}"

    def heartbeat(self) -> str:
        return f"hb.{self.org}.{self.session}"


@lru_cache(maxsize=8192)
def parse_event_subject(subject: str) -> EventSubject:
    """Raises Malformed when it is not the subject of an event."""
    tokens = subject.split(".")
    if len(tokens) not in (5, 6) or tokens[0] != "evt" or not tokens[1].isdecimal():
        raise Malformed(f"{subject[:200]!r} is not the subject of an event")
    aggregate, key = tokens[4], tokens[5] if len(tokens) == 6 else ""
    if (aggregate in KEYED) is not bool(key) or aggregate not in KEYED + SINGLE:
        raise Malformed(f"{subject[:200]!r} is not the subject of an event")
    if key:
        check_id(aggregate, key)
    return EventSubject(int(tokens[1]), check_org(tokens[2]), check_id("session", tokens[3]), aggregate, key)


def parse_command_subject(subject: str) -> CommandSubject:
    """Raises Malformed when it is not the subject of a command."""
    tokens = subject.split(".")
    if len(tokens) != 5 or tokens[0] != "cmd" or tokens[1] not in ROLES:
        raise Malformed(f"{subject[:200]!r} is not the subject of a command")
    return CommandSubject(tokens[1], check_org(tokens[2]), check_id("session", tokens[3]), check_command_id(tokens[4]))


def parse_request_subject(subject: str) -> tuple[str, str, str, str]:
    """(role, org, session, verb) of a `req.` subject. Raises Malformed when it is none."""
    tokens = subject.split(".")
    if len(tokens) != 5 or tokens[0] != "req" or tokens[1] not in ROLES:
        raise Malformed(f"{subject[:200]!r} is not the subject of a request")
    return tokens[1], check_org(tokens[2]), check_id("session", tokens[3]), tokens[4]


def matches(filter: str, subject: str) -> bool:
    """NATS' rule: `*` is one token, a last `>` one or more."""
    wanted, given = filter.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":  # noqa: S105
            return len(given) > index
        if index >= len(given) or (token != "*" and token != given[index]):  # noqa: S105
            return False
    return len(wanted) == len(given)


def stream_of(subject: str) -> str:
    """The stream that keeps a subject. Raises Malformed for one that no stream keeps."""
    head, _, rest = subject.partition(".")
    if head == "evt":
        number, _, _ = rest.partition(".")
        if number.isdecimal():
            return reel(int(number))
    if head == "cmd":
        return CMD
    if head == "dead":
        return DEAD
    raise Malformed(f"no stream keeps {subject[:200]!r}")
