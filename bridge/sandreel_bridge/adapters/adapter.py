"""What is asked of an agent, and what an adapter is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from sandreel_bridge.adapters.reader import Parser, Reader
from sandreel_bridge.steering import Way
from sandreel_core.contract.exec import SecretRef
from sandreel_core.contract.session import WORKSPACE
from sandreel_core.contract.turn import Usage
from sandreel_core.errors import Malformed

WORKDIR = "repo"  # below the workspace; behaviour §4.6
HOME = ".home"  # below the workspace, and kept with it, so that a conversation can be resumed; behaviour §5
MAX_TURNS = 40  # behaviour §3
# The variable that holds the virtual key where a program lets us choose its name.
KEY_NAME = "GATEWAY_TOKEN"
_MAX_USD = 1e9  # more is no price
BROWSER = "sandreel-playwright-mcp"  # in the full image; adds what a browser without a screen needs


class Gateway(Struct, frozen=True, kw_only=True):
    """Where model calls go. `base_url` is the gateway's root, without a slash at its end; the key goes by reference, so that it is in no
    command and no argv (law 6)."""

    base_url: str
    key: SecretRef


class RunSpec(Struct, frozen=True, kw_only=True):
    """One run of an agent's program.

    resume        the program's own id of the conversation (`agent.result`'s `agent_session_id`) that goes on
    message_uuid  of the prompt, for a program that takes each message once (Claude Code); a UUID
    mcp           give the agent a browser (Playwright MCP)
    workspace     the path by which the program finds the workspace
    workdir       where it works, absolute; made if it is not there
    """

    prompt: str
    gateway: Gateway
    model: str | None = None
    resume: str | None = None
    max_turns: int = MAX_TURNS
    permission_mode: Literal["plan", "execute"] = "execute"
    system_prompt_append: str | None = None
    workspace: str = WORKSPACE
    workdir: str = f"{WORKSPACE}/{WORKDIR}"
    mcp: bool = True
    message_uuid: str | None = None

    @property
    def home(self) -> str:
        """Where the program keeps what is its own."""
        return f"{self.workspace}/{HOME}"


class Launch(Struct, frozen=True, kw_only=True):
    """How a program is started: what `Client.exec` takes under the same names. `stdin` is its first input, of any length
    (`exec.start` takes 64 KiB, the rest is written behind it); `files` are written before it starts, by their absolute paths in
    the workspace."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    secret_env: dict[str, SecretRef]
    stdin: bytes = b""
    hold_stdin: bool = False
    files: dict[str, bytes] = {}


class Adapter(Struct, frozen=True, kw_only=True):
    """One agent.

    name       what `turn.start` says
    launch     raises Malformed for what the program cannot do
    dialect    whose API its program speaks to its model
    parser     a fresh one, of a thread whose totals so far are those (None: not known)
    way        how it takes what is said to it in mid-turn (`sandreel_bridge.steering`)
    say        a message under its UUID, as a line of the program's input
    stop_line  what to write there, under an id of the request, so that it stops what it is doing; None: it has to be signalled
    """

    name: str
    dialect: Literal["anthropic", "openai", "gemini"]
    launch: Callable[[RunSpec], Launch]
    parser: Callable[[Usage | None], Parser]
    way: Way = "boundary"
    say: Callable[[str, str | None], bytes] | None = None
    stop_line: Callable[[str], bytes] | None = None

    def reader(self, thread_usage: Usage | None = None) -> Reader:
        """For one run. `thread_usage`: what the last `agent.result` of the conversation said under that name, `Usage()` for
        a conversation that begins; without it a program that counts by conversation cannot say what this run used."""
        return Reader(self.name, self.parser(thread_usage))


def refuse(agent: str, what: str) -> Malformed:
    """For a run that the agent's program cannot do as asked."""
    return Malformed(f"{agent} {what}")


def micro_usd(usd: float | None) -> int | None:
    """What a program says of costs in USD, as an integer. It says 0 where it knows no price, and so that is None."""
    return round(usd * 1_000_000) if usd is not None and 0 < usd < _MAX_USD else None


def sentence(text: str) -> str:
    """As much of it as a sentence of the contract holds."""
    return text[:4096]


def with_instructions(spec: RunSpec) -> str:
    """The prompt for a program that has no way to append to its system prompt: what would be appended stands before it."""
    return f"{spec.system_prompt_append}\n\n{spec.prompt}" if spec.system_prompt_append else spec.prompt
