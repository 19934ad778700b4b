"""One full example of every message: what the golden files are made of."""

from __future__ import annotations

from datetime import UTC, datetime

from sandreel_core.contract import agent as a
from sandreel_core.contract import credential as c
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract import turn as t
from sandreel_core.contract import usage as u
from sandreel_core.contract import workspace as w
from sandreel_core.contract.codec import seal
from sandreel_core.contract.message import Command, Envelope, Event, Owner
from sandreel_core.contract.subjects import KEYED, SessionSubjects

AT = datetime(2026, 11, 24, 3, 0, 0, 123456, UTC)
LATER = datetime(2026, 11, 25, 3, 0, 0, tzinfo=UTC)
COMMAND_ID = "01938f2e-7c00-7abc-8def-0123456789ab"
SUBJECTS = SessionSubjects("acme", "s1", 4)
KEYS = {"exec": "e1", "turn": "t1"}
_USAGE = t.Usage(
    input_tokens=10,
    output_tokens=20,
    cache_read_input_tokens=30,
    cache_creation_input_tokens=40,
    cost_micro_usd=1234,
)
_SLUG = "github"

COMMANDS: tuple[Command, ...] = (
    s.Create(
        owner=Owner(type="user", id="u1"),
        profile="agent",
        image="sandreel:1",
        env={"LANG": "C.UTF-8"},
        ttl_s=3600,
        idle_timeout_s=60,
        limits=s.Limits(cpus=1.5, memory_bytes=1 << 30, pids=64, disk_bytes=1 << 31, execs=8),
        grants=[_SLUG],
    ),
    s.Stop(),
    s.Resume(),
    s.Destroy(),
    s.Pin(),
    s.Unpin(),
    s.Extend(ttl_s=60),
    x.Start(
        exec="e1",
        argv=["echo", "hello"],
        cwd="repo",
        env={"A": "1"},
        secret_env={"TOKEN": x.SecretRef(role="broker", lease="l1")},
        stdin="hold",
        stdin_text="in",
        tty=x.Terminal(cols=100, rows=30),
        timeout_s=10,
        no_output_timeout_s=5,
        orphan_timeout_s=60,
        stdout_max_bytes=1000,
        stderr_max_bytes=2000,
        rate_limit_bytes_per_s=4096,
        leftovers="kill",
    ),
    x.WriteStdin(exec="e1", text="more\n", eof=True),
    x.Signal(exec="e1", signal="SIGINT"),
    x.Cancel(exec="e1"),
    x.Resize(exec="e1", cols=120, rows=40),
    x.Keepalive(exec="e1"),
    w.PatchEnv(set={"B": "2"}, unset=["A"]),
    c.Grant(slug=_SLUG, turn="t1", purpose="push", expires_at=LATER),
    c.Ungrant(slug=_SLUG, turn="t1"),
    c.Revoke(slug=_SLUG),
    t.StartTurn(
        turn="t1",
        agent="claude-code",
        prompt="Fix the failing test",
        model="m",
        conversation_id="c1",
        permission_mode="plan",
        max_turns=10,
        system_prompt_append="Be brief.",
        grants=[_SLUG],
    ),
    t.Steer(turn="t1", message_id="m1", text="and the docs"),
    t.Interrupt(turn="t1"),
    t.Approve(turn="t1"),
    t.Reject(turn="t1", reason="too big"),
)

EVENTS: tuple[Event, ...] = (
    s.Requested(
        incarnation=1,
        profile="agent",
        image="sandreel:1",
        owner=Owner(type="user", id="u1"),
        env={"LANG": "C.UTF-8"},
        env_denied=["PATH"],
        ttl_s=3600,
        idle_timeout_s=60,
        expires_at=LATER,
        limits=s.Limits(execs=8),
        grants=[_SLUG],
    ),
    s.Provisioned(boot=1, boot_id="1-1", backend="process", ref="r1", node="host", fence="none", commands_after=7),
    s.Ready(boot_id="1-1", runnerd_version="0.1.0", contract_version=1, public_keys={"seal": "abc"}),
    s.Degraded(reason="no heartbeat for 15 s"),
    s.Recovered(reason="heartbeats again"),
    s.Stopping(reason="idle", until=LATER),
    s.Stopped(reason="idle", commands_until=9),
    s.Resuming(boot=2, expires_at=LATER, until=LATER),
    s.Destroying(until=LATER),
    s.Destroyed(commands_until=11),
    s.Failed(stage="boot", code="TIMEOUT", message="runnerd did not come up within 180 s", commands_until=9),
    s.Pinned(),
    s.Unpinned(expires_at=LATER),
    s.Extended(expires_at=LATER),
    s.CommandRefused(command_id=COMMAND_ID, code="BAD_REQUEST", message="no"),
    s.CommandSettled(command_id=COMMAND_ID, message="it was so"),
    x.Accepted(boot_id="1-1"),
    x.Started(
        argv=["echo", "hello"],
        cwd="/workspace/repo",
        pid=42,
        tty=x.Terminal(cols=100, rows=30),
        env_names=["A"],
        timeout_s=10,
        no_output_timeout_s=5,
        orphan_timeout_s=60,
        stdout_max_bytes=1000,
        stderr_max_bytes=2000,
        rate_limit_bytes_per_s=4096,
        leftovers="kill",
    ),
    x.Output(stream="stdout", line=1, count=1, text="grüße\n", eol=True),
    x.Progress(lines={"stdout": 255, "stderr": 1}, bytes={"stdout": 4096, "stderr": 9}),
    x.StdinWritten(bytes=5, eof=True, offset=5),
    x.Signalled(signal="SIGTERM", why="cancelled"),
    x.Resized(cols=120, rows=40),
    x.Truncated(stream="stderr", limit_bytes=2000),
    x.Gap(from_n=7, to_n=9, why="refused by the server: too large"),
    x.Throttled(bytes_per_s=4096),
    x.Exited(
        exit_code=None,
        signal="SIGTERM",
        reason="cancelled",
        message="asked",
        oom=True,
        duration_ms=1500,
        lines={"stdout": 1, "stderr": 0},
        bytes={"stdout": 7, "stderr": 0},
        masked=True,
        cpu_ms=12,
        max_rss_bytes=4096,
        leftovers=1,
    ),
    x.Lost(boot_id="1-1", last_n=9, cause="runnerd_died"),
    w.EnvPatched(set={"B": "2"}, unset=["A"], denied=["HOME"]),
    w.FileWritten(path="a/b.txt", size=3, sha256="ab" * 32, actor="u1"),
    w.FileDeleted(path="a/b.txt", actor="u1"),
    c.Granted(slug=_SLUG, turn="t1", purpose="push", expires_at=LATER),
    c.Leased(slug=_SLUG, lease_id="l1", fingerprint="f1", purpose="push", expires_at=LATER),
    c.LeaseRefused(slug=_SLUG, code="NO_GRANT", message="there is no grant", purpose="push"),
    c.Revoked(slug=_SLUG, lease_ids=["l1"], reason="stopped"),
    c.Outlived(slug=_SLUG, lease_id="l1", expires_at=LATER),
    t.TurnRequested(
        agent="claude-code",
        model="m",
        conversation_id="c1",
        prompt="Fix it",
        prompt_object="o1",
        permission_mode="plan",
    ),
    t.TurnPreparing(
        attempt=2, exec="t1-2", incarnation=3, model="m", agent_session_id="a0", budget_micro_usd=5_000_000
    ),
    t.TurnStarted(exec="e1"),
    t.TurnInterrupting(),
    t.SteerQueued(message_id="m1", text="and the docs"),
    t.SteerDelivered(message_ids=["m1"], channel="stdin"),
    t.SteerConsumed(message_ids=["m1"]),
    t.SteerRequeued(message_ids=["m1"]),
    t.Checkpoint(exec_n=12, parser={"pending": []}),
    t.PlanProposed(plan="1. …"),
    t.PlanApproved(next_turn="t2"),
    t.PlanRejected(reason="too big"),
    t.TurnFinished(status="success", error="none", usage=_USAGE),
    a.RunStarted(source_n=3, parent="p", agent="claude-code", agent_session_id="a1", model="m"),
    a.AgentText(source_n=4, text="Looking."),
    a.ToolUse(source_n=5, tool_use_id="u1", tool_name="Bash", input={"command": "ls"}),
    a.ToolResult(source_n=6, tool_use_id="u1", output="a", is_error=True),
    a.AgentUsage(source_n=7, usage=_USAGE, model="m"),
    a.AgentResult(
        source_n=8, status="completed", agent_session_id="a1", final_text="Done.", duration_ms=700, usage=_USAGE
    ),
    a.AgentError(source_n=9, message="overloaded"),
    a.TaskStarted(source_n=10, task_id="k1", description="search"),
    a.TaskSettled(source_n=11, task_id="k1", status="completed"),
    a.AgentRaw(source_n=12, payload={"type": "new"}),
    u.UsageRecorded(call_id="call1", provider="anthropic", model="m", usage=_USAGE, meter="gateway", turn="t1"),
    u.UsageReconciled(turn="t1", gateway=_USAGE, agent=_USAGE, drift_micro_usd=-5),
    u.EgressDenied(host="169.254.169.254", port=80, why="not a global address", count=3),
)


def command(payload: Command) -> Envelope:
    return seal(
        payload,
        id=COMMAND_ID,
        source="/client/acme",
        subject=SUBJECTS.command(payload.role, COMMAND_ID),
        time=AT,
        actor="u1",
        correlationid=COMMAND_ID,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline=LATER,
        expectedrevision="ep0:1:5",
    )


def event(payload: Event) -> Envelope:
    aggregate = payload.aggregate
    key = KEYS[aggregate] if aggregate in KEYED else ""
    return seal(
        payload,
        id="e1-7" if aggregate == "exec" else COMMAND_ID,
        source="/runnerd/acme/s1/1-1",
        subject=SUBJECTS.event(aggregate, key),
        time=AT,
        n=7 if aggregate == "exec" else None,
        causationid=COMMAND_ID,
        correlationid=COMMAND_ID,
        actor="u1",
    )


ALL: dict[str, Envelope] = {p.type: command(p) for p in COMMANDS} | {p.type: event(p) for p in EVENTS}
