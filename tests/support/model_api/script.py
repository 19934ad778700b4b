"""What the stand-in answers, as data. Pure.

A script is a function from what was asked to a reply or a failure. `steps` gives one reply after the other within a turn,
`by_prompt` chooses steps by what stands in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.support.model_api.asked import Asked


@dataclass(frozen=True, slots=True)
class Tokens:
    """As the providers count: `input` are those that no cache had, `reasoning` are among `output`."""

    input: int = 100
    cache_read: int = 300
    cache_creation: int = 20
    output: int = 25
    reasoning: int = 5


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Shell:
    command: str


@dataclass(frozen=True, slots=True)
class Read:
    """`path` of the file tools is relative to where the program works."""

    path: str


@dataclass(frozen=True, slots=True)
class Write:
    path: str
    content: str


@dataclass(frozen=True, slots=True)
class Edit:
    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Delegate:
    """To a sub-agent."""

    prompt: str


@dataclass(frozen=True, slots=True)
class Call:
    """Any tool, by the name that the program has for it."""

    name: str
    input: Mapping[str, object]


Tool = Shell | Read | Write | Edit | Delegate | Call
Block = Say | Think | Tool


@dataclass(frozen=True, slots=True, init=False)
class Reply:
    """One answer.

    first_after_s   nothing is sent before
    every_s         between the pieces (words) of a streamed text
    hang_after      so many events are sent, then nothing more, and the connection stays open (0: not even a head)
    cut_after       so many events are sent, then the connection is reset
    stop            why the model ends: of itself, or because it may not say more
    """

    blocks: tuple[Block, ...]
    tokens: Tokens
    stop: str
    first_after_s: float
    every_s: float
    hang_after: int | None
    cut_after: int | None

    def __init__(
        self,
        *blocks: Block | str,
        tokens: Tokens = Tokens(),
        stop: str = "end",
        first_after_s: float = 0,
        every_s: float = 0,
        hang_after: int | None = None,
        cut_after: int | None = None,
    ) -> None:
        said = tuple(Say(block) if isinstance(block, str) else block for block in blocks)
        for name, value in (
            *(("blocks", said), ("tokens", tokens), ("stop", stop), ("first_after_s", first_after_s)),
            *(("every_s", every_s), ("hang_after", hang_after), ("cut_after", cut_after)),
        ):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that is none, in the form of whichever API was asked."""

    status: int
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Script = Callable[[Asked], Reply | Failure]


def steps(*replies: Reply | Failure | str) -> Script:
    """The first reply to a prompt, the second when its tools have answered, and so on; the last one from then on."""
    made = [Reply(each) if isinstance(each, str) else each for each in replies]

    def script(asked: Asked) -> Reply | Failure:
        return made[min(asked.rounds_after(last_prompt(asked)), len(made) - 1)]

    return script


def by_prompt(rules: Mapping[str, Sequence[Reply | Failure | str]], otherwise: Script) -> Script:
    """The newest prompt that holds one of these texts decides, and its steps are counted from there; `otherwise` if none does.
    So a message that comes in mid-turn changes the course if it holds a text, and else does not."""

    def script(asked: Asked) -> Reply | Failure:
        for index in reversed(range(len(asked.items))):
            if asked.items[index].role == "user":
                for text, replies in rules.items():
                    if text in asked.items[index].text:
                        step = replies[min(asked.rounds_after(index), len(replies) - 1)]
                        return Reply(step) if isinstance(step, str) else step
        return otherwise(asked)

    return script


def last_prompt(asked: Asked) -> int:
    """Where the newest thing stands that a person said; -1 for nowhere."""
    return max((index for index, item in enumerate(asked.items) if item.role == "user"), default=-1)
