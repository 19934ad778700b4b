"""The streams and durable consumers of an installation, as data (design §3), and the one call that ensures them."""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from sandreel_core.bus.port import Bus, Stream, Work, partitions_of
from sandreel_core.clock import new_token
from sandreel_core.contract.subjects import CMD, DEAD, reel
from sandreel_core.errors import Misconfigured

GIB = 1 << 30
REEL_MAX_BYTES = 8 * GIB
CMD_MAX_BYTES = GIB
DEAD_MAX_BYTES = 64 << 20
CMD_MAX_AGE_S = 7 * 86_400
# A command is stale an hour before CMD forgets it, so that none is run twice because its first copy is gone.
STALE_MARGIN_S = 3600
# The largest block is 864 KiB (decision 0006), the largest command 900,000 bytes (`codec.MAX_COMMAND_BYTES`).
MIN_PAYLOAD_BYTES = 1 << 20

# What every role reads. All other commands are the spawner's too: it refuses what no boot owns, and what is for a role
# that is not installed ([spawner] roles), and buries what names nobody.
# What a killed role had taken comes again after `ack_wait_s`: well before whoever asked gives up (30 s), also when the
# next one is killed too. A repeat that comes while the first is under way finds it answered.
_AGAIN_S = 10.0
SPAWNER_COMMANDS = Work(CMD, "spawner", ("cmd.spawner.>",), ack_wait_s=_AGAIN_S)
SPAWNER_REFUSALS = Work(CMD, "spawner-refusals", ("cmd.>",), ack_wait_s=_AGAIN_S)
BROKER_COMMANDS = Work(CMD, "broker", ("cmd.broker.>",), ack_wait_s=_AGAIN_S)
BRIDGE_COMMANDS = Work(CMD, "bridge", ("cmd.bridge.>",), ack_wait_s=_AGAIN_S)
# Made at once; those of a role that is not installed are made by it when it starts.
WORKS = (SPAWNER_COMMANDS, SPAWNER_REFUSALS)


class Shape(Protocol):
    """What an operator says about the streams (`settings.Bus` is one)."""

    @property
    def partitions(self) -> int: ...
    @property
    def replicas(self) -> int: ...
    @property
    def reel_max_bytes(self) -> int: ...
    @property
    def cmd_max_bytes(self) -> int: ...
    @property
    def dead_max_bytes(self) -> int: ...
    @property
    def cmd_max_age_s(self) -> int: ...
    @property
    def duplicate_window_s(self) -> int: ...


def streams(
    *,
    partitions: int = 1,
    replicas: int = 1,
    reel_max_bytes: int = REEL_MAX_BYTES,
    cmd_max_bytes: int = CMD_MAX_BYTES,
    dead_max_bytes: int = DEAD_MAX_BYTES,
    cmd_max_age_s: float = CMD_MAX_AGE_S,
    duplicate_window_s: float = 120,
) -> list[Stream]:
    """Every stream, CMD first, none with an epoch yet. `reel_max_bytes` is of one partition."""
    reels = [
        Stream(
            name=reel(partition),
            subjects=(f"evt.{partition}.>",),
            max_bytes=reel_max_bytes,
            replicas=replicas,
            duplicate_window_s=duplicate_window_s,
            batches=True,
        )
        for partition in range(partitions)
    ]
    commands = Stream(
        name=CMD,
        subjects=("cmd.>",),
        max_bytes=cmd_max_bytes,
        max_age_s=cmd_max_age_s,
        per_subject=1,
        discard_new_per_subject=True,
        replicas=replicas,
        duplicate_window_s=duplicate_window_s,
        # Which stream a session is in depends on it, so it is written down once (`ensure_installation`).
        metadata={"partitions": str(partitions)},
    )
    dead = Stream(
        name=DEAD,
        subjects=("dead.>",),
        max_bytes=dead_max_bytes,
        per_subject=1,
        discard_new_per_subject=True,
        replicas=replicas,
        duplicate_window_s=duplicate_window_s,
    )
    return [commands, dead, *reels]


async def ensure_installation(bus: Bus, shape: Shape | None = None) -> None:
    """Make or update every stream and consumer; a REEL stream that is new gets its epoch. Idempotent, also when
    several roles do it at once. Raises Misconfigured, Unavailable."""
    if bus.max_payload < MIN_PAYLOAD_BYTES:
        raise Misconfigured(
            f"the NATS server's max_payload is {bus.max_payload} bytes; a block of output and a command need "
            f"{MIN_PAYLOAD_BYTES}, its default"
        )
    commands, *others = streams() if shape is None else _of(shape)
    await bus.ensure([commands])
    wanted, made_with = partitions_of(commands.metadata), (await bus.state(CMD)).partitions
    if made_with != wanted:
        raise Misconfigured(
            f"[bus] partitions is {wanted}, and this installation was made with {made_with}: sessions would be looked for"
            " where they are not"
        )
    with_epochs = [
        replace(stream, metadata={"epoch": new_token()}) if stream.name.startswith("REEL-") else stream
        for stream in others
    ]
    await bus.ensure(with_epochs, WORKS)


def _of(shape: Shape) -> list[Stream]:
    return streams(
        partitions=shape.partitions,
        replicas=shape.replicas,
        reel_max_bytes=shape.reel_max_bytes,
        cmd_max_bytes=shape.cmd_max_bytes,
        dead_max_bytes=shape.dead_max_bytes,
        cmd_max_age_s=shape.cmd_max_age_s,
        duplicate_window_s=shape.duplicate_window_s,
    )
