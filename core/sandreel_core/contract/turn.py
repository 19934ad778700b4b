"""Messages about an agent turn: how it is asked for and steered, and what it goes through.

What its agent said and did stands on the same subject: see agent.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from sandreel_core.contract.message import (
    MAX_INTEGER,
    Command,
    Count,
    Event,
    Id,
    Ordinal,
    Owner,
    Part,
    Sentence,
    Sha256,
    not_too_deep,
)
from sandreel_core.contract.session import Profile, Slug

AgentName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$(?!\n)")]
MAX_PROMPT_BYTES = 64 * 1024  # design §4; a longer prompt goes through the object store
MAX_ATTACHMENT_BYTES = 100 * 1024 * 1024  # as what is fetched from a URL (behaviour §1)
Prompt = Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_BYTES)]
TurnStatus = Literal["success", "failed", "cancelled", "interrupted", "max_turns", "plan"]


class TurnCommand(Command, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "turn"
    role: ClassVar[str] = "bridge"
    turn: Id


class Attachment(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A file that a message brings: placed in the workspace before the turn starts. It was put into the session's
    `uploads/` before (then `sha256` is checked), or is fetched from `url`. Each path once."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    sha256: Sha256 | None = None
    url: Annotated[str, Meta(min_length=8, max_length=4096)] | None = None


class StartTurn(TurnCommand, frozen=True, kw_only=True):
    """Let an agent work on a prompt in the session; its sandbox is created, resumed or made again as that needs.

    prompt_object     SHA-256 of a prompt of more than 64 KiB, which a bridge has been handed before (`prompt.StorePrompt`); `prompt` is
                      its beginning then, for whoever reads the log
    owner             whose session it is, where it has to be created; required then
    model             one of the org's models; absent = the org's default
    conversation_id   turns of one conversation go on from one another, within one life of the session, and run one after the other in
                      the order in which they were asked for; ten wait at most (QUEUE_FULL)
    workdir           below the workspace; made if it is not there
    budget_micro_usd  what the gateway lets it spend; absent = the installation's, and never more than what is left of the
                      org's and the user's
    grants            credentials that the turn may lease, revoked at its end
    """

    type: ClassVar[str] = "turn.start"
    agent: AgentName
    prompt: Prompt
    prompt_object: Sha256 | None = None
    model: Annotated[str, Meta(max_length=256)] | None = None
    conversation_id: Id | None = None
    permission_mode: Literal["plan", "execute"] = "execute"
    max_turns: Annotated[int, Meta(ge=1, le=1000)] = 40
    system_prompt_append: Prompt | None = None
    grants: Annotated[list[Slug], Meta(max_length=64)] = []
    owner: Owner | None = None
    profile: Profile = "agent"
    workdir: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    attachments: Annotated[list[Attachment], Meta(max_length=64)] = []
    budget_micro_usd: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None = None


class Steer(TurnCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.steer"
    message_id: Id
    text: Prompt


class Interrupt(TurnCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.interrupt"


class Approve(TurnCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.approve"


class Reject(TurnCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.reject"
    reason: Sentence = ""


class Usage(Part, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens by OpenTelemetry GenAI names, and counted as it counts: `input_tokens` are all that went in, those read from
    and written to a cache among them, and `output_tokens` all that came out, thoughts among them. Money in integer
    micro-USD, absent when the price is unknown."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cost_micro_usd: Count | None = None


class TurnEvent(Event, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "turn"


class TurnRequested(TurnEvent, frozen=True, kw_only=True):
    """The intent: everything that whoever drives the turn needs, so that any bridge can take it up."""

    type: ClassVar[str] = "turn.requested"
    agent: str
    model: str | None = None
    conversation_id: str | None = None
    prompt: str | None = None
    prompt_object: str | None = None
    permission_mode: Literal["plan", "execute"] = "execute"
    max_turns: int = 40
    system_prompt_append: str | None = None
    grants: list[str] = []
    owner: Owner | None = None
    profile: Profile = "agent"
    workdir: str | None = None
    attachments: list[Attachment] = []
    budget_micro_usd: Count | None = None


class TurnPreparing(TurnEvent, frozen=True, kw_only=True):
    """The intent to run it, before anything outside the log is made. The exec is named after the session, the turn and `attempt` (one more
    behind one that ended without a word, and behind one that its session's boot did not live to start), the gateway's key after how often
    this was said. It may happen again with the same attempt, when another life of the session or another model has to be taken, or
    another bridge has taken the turn up.

    incarnation       of the session; a conversation is gone on with only within it
    workspace         the path by which the session's programs find it, where that is not `session.WORKSPACE`
    agent_session_id  the conversation that the program is told to resume
    model             that it is told to ask for
    """

    type: ClassVar[str] = "turn.preparing"
    attempt: Ordinal
    exec: str
    incarnation: Ordinal
    model: str | None = None
    workspace: str | None = None
    agent_session_id: str | None = None
    budget_micro_usd: Count | None = None


class TurnStarted(TurnEvent, frozen=True, kw_only=True):
    """runnerd has accepted the exec. `key`: the name of the gateway's key, which is no secret."""

    type: ClassVar[str] = "turn.started"
    exec: str
    key: str | None = None


class TurnInterrupting(TurnEvent, frozen=True, kw_only=True):
    """Somebody wants it to end: no exec starts after this, and the one that runs is asked, then signalled, then killed."""

    type: ClassVar[str] = "turn.interrupting"


class PlanApproved(TurnEvent, frozen=True, kw_only=True):
    """Decided once. The conversation goes on in the turn `next_turn`."""

    type: ClassVar[str] = "turn.plan_approved"
    next_turn: str


class PlanRejected(TurnEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.plan_rejected"
    reason: Sentence = ""


class SteerQueued(TurnEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.steer_queued"
    message_id: str
    text: str


class SteerDelivered(TurnEvent, frozen=True, kw_only=True):
    """Handed to the program, which has not yet said that it read it."""

    type: ClassVar[str] = "turn.steer_delivered"
    message_ids: list[str]
    channel: Literal["stdin", "hook", "next_turn"]


class SteerConsumed(TurnEvent, frozen=True, kw_only=True):
    """The program has read them: seen in its output, or in what its hook left behind. Once for each message."""

    type: ClassVar[str] = "turn.steer_consumed"
    message_ids: list[str]


class SteerRequeued(TurnEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.steer_requeued"
    message_ids: list[str]


class Checkpoint(TurnEvent, frozen=True, kw_only=True):
    """Up to this ordinal of the exec everything has been mapped: where a successor goes on."""

    type: ClassVar[str] = "turn.checkpoint"
    exec_n: Ordinal
    parser: Any = None

    def __post_init__(self) -> None:
        not_too_deep(self.parser, "parser")


class PlanProposed(TurnEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.plan_proposed"
    plan: str


class TurnFinished(TurnEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn.finished"
    status: TurnStatus
    error: Sentence | None = None
    usage: Usage = Usage()
