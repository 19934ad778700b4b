"""When and how a message reaches an agent that is at work (behaviour §4.4, §4.5). Pure.

A message is *queued*; then *delivered*, which is written down before it is done, so that a bridge that takes over does it
again under the same name; then *consumed*, which is seen: in what the program prints, or in what its hook leaves behind.
What was not seen to be consumed when the program has ended goes back into the queue and opens the next turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, TypeAlias
from uuid import UUID, uuid5

from msgspec import Struct

from sandreel_core.agent import AgentItem
from sandreel_core.contract import agent as a
from sandreel_core.turn import Run, Turn, message_state

QUIET_IDLE_S = 5.0  # behaviour §4.4, `…QUIET_IDLE_MS`
MAX_COMBINED_BYTES = 16_000  # of texts that travel together; a longer one travels alone
STEERS = ".sandreel/steer"  # below the workspace; the hook of `image/agents` looks there, and marks what it takes
TAKEN = "consumed."
_READ = ("started", "completed")  # what a program says of a message that it has read

Posture = Literal["background", "waittool", "subagent", "none"]
# How an agent takes what comes in mid-turn. `hooked`: over stdin when it is idle, else by its hook; `open`: over stdin at any time;
# `boundary`: not at all, so that it opens the next turn.
Way = Literal["hooked", "open", "boundary"]
Channel = Literal["stdin", "hook", "next_turn"]

_WAITS = frozenset({"TaskOutput"})
_SUBAGENTS = frozenset({"Task", "Agent"})  # its name in the list of tools, and in the call
_BETWEEN = "\n\n"
_NAMESPACE = UUID("5f1a3c1e-6f0b-5b0e-9b1d-7d7a0c2f4e61")  # ours, made once


class Message(Struct, frozen=True):
    """`number`: its place among the turn's, from 1."""

    id: str
    text: str
    number: int = 0


class Delivery(Struct, frozen=True):
    """What was handed over together, and how."""

    messages: tuple[Message, ...]
    channel: Channel

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


def posture(run: Run, quiet_s: float) -> Posture:
    """Which of the three quiet ways to be idle it is in, when its main loop has said nothing for so long; needs neither a result nor
    any other sign that it is."""
    if quiet_s < QUIET_IDLE_S:
        return "none"
    running = set(run.tools.values())
    if run.tasks and not running:
        return "background"
    if run.tasks and running <= _WAITS:
        return "waittool"
    return "subagent" if running and running <= _SUBAGENTS else "none"


def breaks_the_silence(item: AgentItem) -> bool:
    """Whether it is a sign of life of the main loop: a task's and a sub-agent's words are none, nor is what becomes of a message."""
    if isinstance(item, a.TaskStarted | a.TaskSettled) or item.parent is not None:
        return False
    return not isinstance(item, a.AgentRaw) or message_state(item) is None


class Deliver(Struct, frozen=True):
    """Write down that these are handed over so, then do it. `taking_back`: those among them that lie where the hook looks. They are
    deleted there before that; what the hook has marked as taken by then is consumed, and not said again."""

    delivery: Delivery
    taking_back: tuple[Message, ...] = ()


class Wait(Struct, frozen=True):
    """Until something happens, or for so long; None: only until something happens. `look`: see meanwhile what the hook has taken."""

    for_s: float | None = None
    look: bool = False


Step: TypeAlias = Deliver | Wait


def step(way: Way, turn: Turn, quiet_s: float, *, input_open: bool = True) -> Step:
    """What is to be done now about what a person said. When its input may end is said by `sandreel_bridge.control`: not before all of it
    has been read.

    quiet_s     since its main loop last said something
    input_open  False: it was found that its input has ended
    """
    if turn.interrupting or way == "boundary":
        return Wait()
    queued = [of(id, turn) for id in turn.waiting if turn.messages[id].place == "queued"]
    by_hook = [of(id, turn) for id in turn.waiting if turn.messages[id].channel == "hook"]
    idle = turn.run.result is not None or posture(turn.run, quiet_s) != "none"
    if input_open and (way == "open" or idle):
        if not (waiting := [*by_hook, *queued]):
            return Wait()
        together, lying = combined(waiting), {message.id for message in by_hook}
        return Deliver(Delivery(together, "stdin"), tuple(each for each in together if each.id in lying))
    if way == "hooked" and queued:
        return Deliver(Delivery(tuple(queued), "hook"))
    if not by_hook:
        return Wait()
    left_s = QUIET_IDLE_S - quiet_s
    return Wait(for_s=left_s if left_s > 0 and input_open else None, look=True)


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
    return str(uuid5(_NAMESPACE, "\0".join((turn, *ids))))


def deliveries(turn: Turn) -> list[Delivery]:
    """What was handed over and not seen to be read: together what was handed over together, oldest first."""
    found: dict[tuple[str, ...], Delivery] = {}
    for id in turn.waiting:
        message = turn.messages[id]
        if message.place == "delivered" and message.channel is not None:
            together = (each for each in message.together if each in turn.waiting)
            found[message.together] = Delivery(tuple(of(each, turn) for each in together), message.channel)
    return list(found.values())


class Heard(Struct, frozen=True):
    """What became of messages that were delivered over stdin: the program has read them, or will not."""

    consumed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def heard(turn: Turn, name: str, item: AgentItem) -> Heard:
    """What the program shows by saying this. One that tells of its messages is believed; of another, the end of the answer that
    follows is the sign."""
    over_stdin = [each for each in deliveries(turn) if each.channel == "stdin"]
    if isinstance(item, a.AgentRaw) and (said := message_state(item)) is not None:
        uuid, state = said
        ids = tuple(id for each in over_stdin if message_uuid(name, each.ids) == uuid for id in each.ids)
        return Heard(consumed=ids if state in _READ else (), refused=ids if state == "cancelled" else ())
    if isinstance(item, a.AgentResult) and item.parent is None and not turn.run.tells:
        return Heard(consumed=tuple(id for each in over_stdin for id in each.ids))
    return Heard()


def folder_of(exec_id: str) -> str:
    """Where its hook looks, below the workspace."""
    return f"{STEERS}/{exec_id}"


def file_name(message: Message) -> str:
    """In that folder: the hook takes them in the order of their names."""
    return f"steer-{message.number:015d}-{message.id}.json"


def taken_by_hook(names: Collection[str], turn: Turn) -> list[str]:
    """Ids of messages that wait for the hook and that it has taken, by the names in the folder."""
    by_hook = [of(id, turn) for id in turn.waiting if turn.messages[id].channel == "hook"]
    return [message.id for message in by_hook if f"{TAKEN}{file_name(message)}" in names]


def missing_for_hook(names: Collection[str], turn: Turn) -> list[Message]:
    """What waits for the hook by the log, and neither lies there nor was taken: whoever wrote it down did not live to do it."""
    by_hook = [of(id, turn) for id in turn.waiting if turn.messages[id].channel == "hook"]
    return [each for each in by_hook if not {file_name(each), f"{TAKEN}{file_name(each)}"}.intersection(names)]


def of(id: str, turn: Turn) -> Message:
    """One of the turn's messages."""
    message = turn.messages[id]
    return Message(id, message.text, message.number)
