"""When and how a message reaches an agent that is at work, and when its input may end (behaviour §4.4, §4.5). Pure.

A message is *queued*; then *delivered*, which is written down before it is done, so that a bridge that takes over does it
again under the same name; then *consumed*, which is seen: in what the program prints, or in what its hook leaves behind.
What was not seen to be consumed when the program has ended goes back into the queue and opens the next turn.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import turn as t

QUIET_IDLE_S = 5.0  # behaviour §4.4, `…QUIET_IDLE_MS`
MAX_QUEUED = 10  # behaviour §4.1: the next one is refused, QUEUE_FULL
MAX_COMBINED_BYTES = 16_000  # of texts that travel together; a longer one travels alone
STEERS = ".sandreel/steer"  # below the workspace; the hook of `image/agents` looks there

Posture = Literal["background", "waittool", "subagent", "none"]
# How an agent takes what comes in mid-turn. `hooked`: over stdin when it is idle, else by its hook; `open`: over stdin at any time;
# `boundary`: not at all, so that it opens the next turn.
Way = Literal["hooked", "open", "boundary"]
Channel = Literal["stdin", "hook", "next_turn"]

_WAITS = frozenset({"TaskOutput"})
_SUBAGENTS = frozenset({"Task", "Agent"})  # its name in the list of tools, and in the call
_MOST = 1024  # tools, and tasks, that have not ended; of more the oldest is forgotten
_BETWEEN = "\n\n"
_NAMESPACE = uuid.UUID("5f1a3c1e-6f0b-5b0e-9b1d-7d7a0c2f4e61")  # ours, made once


class Message(Struct, frozen=True):
    id: str
    text: str


class Delivery(Struct, frozen=True):
    """What was handed over together, and how."""

    messages: tuple[Message, ...]
    channel: Channel

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


class Loop(Struct):
    """What the program is doing, folded from what it says; plain data, to be kept with a checkpoint.

    tools        of the main loop, that have begun and not ended: their ids, and their names
    tasks        that go on beside it
    result_seen  its answer is finished, and nothing of a next one was said
    tells        it says which messages it takes, so that nothing has to be guessed from its answers
    spoke_at_s   when the main loop last said something, on the caller's monotonic clock
    """

    spoke_at_s: float
    tools: dict[str, str] = {}
    tasks: dict[str, None] = {}
    result_seen: bool = False
    tells: bool = False

    def take(self, item: AgentItem, now_s: float) -> None:
        """One thing that it said. A task's and a sub-agent's words are no sign of life of the main loop."""
        if isinstance(item, t.TaskStarted):
            self.tasks[item.task_id] = None
            _bound(self.tasks)
            return
        if isinstance(item, t.TaskSettled):
            self.tasks.pop(item.task_id, None)
            return
        if item.parent is not None:
            return
        if _lifecycle(item) is not None:
            self.tells = True  # of a message, and not of the loop
            return
        self.spoke_at_s = now_s
        if isinstance(item, t.AgentResult):
            self.result_seen = True
            self.tools.clear()
        elif isinstance(item, t.RunStarted | t.AgentText | t.ToolUse | Typed):
            self.result_seen = False
        if isinstance(item, t.ToolUse):
            self.tools[item.tool_use_id] = item.tool_name
            _bound(self.tools)
        elif isinstance(item, t.ToolResult):
            self.tools.pop(item.tool_use_id, None)


def posture(loop: Loop, now_s: float) -> Posture:
    """Which of the three quiet ways to be idle it is in; needs neither a result nor any other sign that it is."""
    if now_s - loop.spoke_at_s < QUIET_IDLE_S:
        return "none"
    running = set(loop.tools.values())
    if loop.tasks and not running:
        return "background"
    if loop.tasks and running <= _WAITS:
        return "waittool"
    return "subagent" if running and running <= _SUBAGENTS else "none"


class Deliver(Struct, frozen=True):
    """Write down that these are handed over so, then do it. `taking_back`: those among them that lie where the hook looks. They are
    deleted there before that; what the hook has marked as taken by then is consumed, and not said again."""

    delivery: Delivery
    taking_back: tuple[Message, ...] = ()


class EndInput(Struct, frozen=True):
    """Nothing more will be said: let the program end."""


class Wait(Struct, frozen=True):
    """Until something happens, or for so long; None: only until something happens. `look`: see meanwhile what the hook has taken."""

    for_s: float | None = None
    look: bool = False


Step: TypeAlias = Deliver | EndInput | Wait


def step(way: Way, loop: Loop, queued: Sequence[Message], delivered: Sequence[Delivery], now_s: float) -> Step:
    """What is to be done now about what a person said. `queued` and what was `delivered` and not seen to be consumed, oldest first."""
    ready = way == "open" or loop.result_seen or (way == "hooked" and posture(loop, now_s) != "none")
    by_hook = [message for each in delivered if each.channel == "hook" for message in each.messages]
    if way == "hooked" and queued and not ready:
        return Deliver(Delivery(tuple(queued), "hook"))
    if way != "boundary" and ready and (waiting := [*by_hook, *queued]):
        together = combined(waiting)
        taken = {message.id for message in by_hook}
        return Deliver(Delivery(together, "stdin"), tuple(each for each in together if each.id in taken))
    if may_end_input(way, loop, queued, delivered):
        return EndInput()
    if by_hook:
        left_s = QUIET_IDLE_S - (now_s - loop.spoke_at_s)
        return Wait(for_s=left_s if left_s > 0 else None, look=True)
    return Wait()


def may_end_input(way: Way, loop: Loop, queued: Sequence[Message], delivered: Sequence[Delivery]) -> bool:
    """Only when it has answered, nothing runs beside it, and nothing is on its way to it. What cannot reach it at all does not hold it."""
    on_its_way = way != "boundary" and bool(queued or delivered)
    return loop.result_seen and not loop.tasks and not on_its_way


def combined(waiting: Sequence[Message]) -> tuple[Message, ...]:
    """As many of them, from the first, as travel together; each id once."""
    found: dict[str, Message] = {}
    room = MAX_COMBINED_BYTES
    for message in waiting:
        if message.id in found:
            continue
        room -= len(message.text.encode(errors="replace")) + len(_BETWEEN)
        if found and room < 0:
            break
        found[message.id] = message
    return tuple(found.values())


def joined(messages: Iterable[Message]) -> str:
    """One text of several: what a program is told at once, and the prompt that opens the next turn."""
    return _BETWEEN.join(message.text for message in messages)


def message_uuid(turn: str, ids: Sequence[str]) -> str:
    """Under which these messages of a turn are told to a program that takes each UUID once: the same for whoever tells them again."""
    return str(uuid.uuid5(_NAMESPACE, "\0".join((turn, *ids))))


def consumed(loop: Loop, item: AgentItem, turn: str, delivered: Sequence[Delivery]) -> list[str]:
    """Which of what was delivered over stdin the program shows to have read by saying this. Ask before the loop takes it.

    A program that tells so is believed; of another, the end of the answer that follows is the sign.
    """
    if not (over_stdin := [each for each in delivered if each.channel == "stdin"]):
        return []
    if (said := _lifecycle(item)) is not None:
        id, state = said
        read = [each for each in over_stdin if message_uuid(turn, each.ids) == id]
        return [id for each in read for id in each.ids] if state in ("started", "completed") else []
    if isinstance(item, t.AgentResult) and item.parent is None and not loop.tells:
        return [id for each in over_stdin for id in each.ids]
    return []


def file_path(exec_id: str, order: int, message: Message) -> str:
    """Where a message waits for the hook, below the workspace; `order` is its place among the turn's."""
    return f"{STEERS}/{exec_id}/steer-{order:015d}-{message.id}.json"


def taken_by_hook(names: Collection[str], messages: Iterable[Message]) -> list[str]:
    """Ids of those messages whose file, by the names in the exec's folder, the hook has taken."""
    marks = {name.rpartition(".")[0].split("-", 2)[2] for name in names if _is_mark(name)}
    return [message.id for message in messages if message.id in marks]


def left_over(queued: Sequence[Message], delivered: Sequence[Delivery], names: Collection[str]) -> list[str]:
    """When the program has ended: ids of what nobody saw it read, `names` being those in the exec's folder. It may have read
    what it was told over stdin and not have lived to say so: over a turn's end a message is told at least once."""
    by_hook = [message for each in delivered if each.channel == "hook" for message in each.messages]
    taken = frozenset(taken_by_hook(names, by_hook))
    every = [*(message.id for each in delivered for message in each.messages), *(message.id for message in queued)]
    return [id for id in every if id not in taken]


def _is_mark(name: str) -> bool:
    return name.startswith("consumed.steer-") and name.endswith(".json") and name.count("-") >= 2


def _lifecycle(item: AgentItem) -> tuple[str, str] | None:
    """(UUID, state) of a message, from a line that says so."""
    payload: Any = item.payload if isinstance(item, t.AgentRaw) else None
    if not isinstance(payload, dict) or payload.get("type") != "command_lifecycle":
        return None
    return str(payload.get("command_uuid")), str(payload.get("state"))


def _bound(some: dict[str, Any]) -> None:
    if len(some) > _MOST:
        del some[next(iter(some))]
