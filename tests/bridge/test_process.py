"""What is to be done next about a turn, as transcripts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sandreel_bridge import process as p
from sandreel_bridge.control import CANCEL_AGAIN_S, EOF_GRACE_S, LINGER_S, Told, due
from sandreel_bridge.outcome import Outcome, outcome
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.session import Session
from sandreel_core.turn import Turn
from tests.support.turns import ME, OTHER, RUNNING, folded, preparing, requested, result, said, started, text

END = Exited(exit_code=0, reason="exited", duration_ms=1)
LOST = Lost(last_n=3, cause="container_exit")
REQUESTED_AT = 10


def home(phase: Any = "ready", sequence: int = 5, incarnation: int = 1) -> p.Home:
    return p.Home(session=Session(phase=phase, incarnation=incarnation), sequence=sequence)


def facts(**known: Any) -> p.Facts:
    return p.Facts(me=ME, requested_at=REQUESTED_AT, **{"first": True} | known)


STOP = c.TurnInterrupting()
QUEUED = c.SteerQueued(message_id="m1", text="and this")
PLAN = a.ToolUse(source_n=3, tool_use_id="p", tool_name="ExitPlanMode", input={"plan": "1. look"})
PLANNING = (requested(permission_mode="plan"), *RUNNING[1:])
DESTROYED = "the session was destroyed"
OVER = c.TurnFinished(status="success")
STEPS: dict[str, tuple[tuple[Any, ...], p.Facts, p.Step]] = {
    "nothing": ((), facts(), p.Leave()),
    "where does it live": ((requested(),), facts(), p.Look("home")),
    "who is in front": ((requested(),), facts(first=False, home=home()), p.StandInLine()),
    "not wanted any more while it waits": ((requested(), STOP), facts(first=False), p.Finish(status="cancelled")),
    "prepared, so that nobody is in front": ((requested(), preparing()), facts(first=False, home=home(), exec="absent"), p.Start()),
    "nowhere": ((requested(),), facts(home=home("none", 0, 0)), p.MakeHome()),
    "it sleeps": ((requested(),), facts(home=home("stopped", 20)), p.MakeHome()),
    "it was destroyed before": ((requested(),), facts(home=home("destroyed", 5)), p.MakeHome()),
    "it was destroyed since": ((requested(),), facts(home=home("destroyed", 11)), p.Finish(status="cancelled", error=DESTROYED)),
    "it was destroyed since, and somebody has made it again": ((requested(),), facts(home=replace(home(incarnation=2, sequence=30), ended_since=True)), p.Finish(status="cancelled", error=DESTROYED)),
    "it is being destroyed": ((requested(),), facts(home=home("destroying", 11)), p.Finish(status="cancelled", error=DESTROYED)),
    "ready": ((requested(),), facts(home=home()), p.Prepare(1)),
    "prepared, by whom we are": ((requested(), preparing()), facts(home=home(), exec="absent"), p.Start()),
    "prepared, and nothing else known": ((requested(), preparing()), facts(), p.Look("exec")),
    "prepared by another": ((requested(), said(preparing(), source=OTHER)), facts(home=home(), exec="absent"), p.Prepare(1)),
    "prepared in another life": ((requested(), preparing()), facts(home=home(incarnation=2, sequence=20), exec="absent"), p.Finish(status="cancelled", error=DESTROYED)),
    "its start is on its way": ((requested(), preparing()), facts(exec="sent", has_key=True), p.AwaitStart()),
    "its start is on its way, and the key is lost": ((requested(), preparing()), facts(home=home(), exec="sent"), p.Prepare(1, pending=True)),
    "the start of another is on its way": ((requested(), said(preparing(), source=OTHER)), facts(home=home(), exec="sent", has_key=True), p.Prepare(1, pending=True)),
    "it was on its way before, and was refused": ((requested(), preparing()), facts(home=home(), exec="absent", pending=True, refused="EXEC_LIMIT: five", refused_id="turn.preparing-0", starts=1), p.Prepare(1, pending=True)),
    "its boot did not take it up": ((requested(), preparing()), facts(exec="lost"), p.Look("home")),
    "its boot did not take it up, and another can": ((requested(), preparing()), facts(home=home(), exec="lost"), p.Prepare(2)),
    "its boot did not take it up, and the session sleeps": ((requested(), preparing()), facts(home=home("stopped", 20), exec="lost"), p.MakeHome()),
    "its boot did not take it up, for it was destroyed": ((requested(), preparing()), facts(home=home("destroyed", 20), exec="lost"), p.Finish(status="cancelled", error=DESTROYED)),
    "its boot did not take it up, and it was to be stopped": ((requested(), preparing(), STOP), facts(exec="lost"), p.Finish(status="cancelled")),
    "no boot took it up": ((requested(), preparing(p.MAX_STARTS)), facts(home=home(), exec="lost"), p.Finish(status="failed", error=p.NEVER_TAKEN_UP)),
    "it is there": ((requested(), preparing()), facts(exec="there"), p.Began()),
    "it is there, and to be stopped": ((requested(), preparing(), STOP), facts(exec="there"), p.Began()),
    "stopped before anything": ((requested(), STOP), facts(), p.Finish(status="cancelled")),
    "stopped, prepared and not sent": ((requested(), preparing(), STOP), facts(exec="absent"), p.Finish(status="cancelled")),
    "stopped, and on its way": ((requested(), preparing(), STOP), facts(exec="sent"), p.AwaitStart()),
    "stopped with a message": ((requested(), QUEUED, STOP), facts(), p.Requeue(["m1"])),
    "the start was refused for a while": ((requested(), preparing()), facts(home=home(), exec="absent", refused="EXEC_LIMIT: five", refused_id="turn.preparing-0", starts=1), p.Prepare(1)),
    "the start was refused too often": ((requested(), preparing()), facts(exec="absent", refused="EXEC_LIMIT: five", starts=p.MAX_STARTS), p.Finish(status="failed", error="EXEC_LIMIT: five")),
    "the start was refused for good": ((requested(), preparing()), facts(exec="absent", refused="INVALID_CWD: no", starts=1), p.Finish(status="failed", error="INVALID_CWD: no")),
    "it runs": (RUNNING, facts(), p.Read()),
    "it is to be stopped while it runs": ((*RUNNING, STOP), facts(), p.Read()),
    "done": ((*RUNNING, text(), result()), facts(end=END), p.Finish(status="success")),
    "done, with a message left": ((*RUNNING, text(), result(), QUEUED), facts(end=END), p.Requeue(["m1"])),
    "done, the message back in the queue": ((*RUNNING, text(), result(), QUEUED, c.SteerRequeued(message_ids=["m1"])), facts(end=END), p.Finish(status="success")),
    "not a word": ((*RUNNING, result()), facts(end=END), p.Look("home")),
    "not a word, and again": ((*RUNNING, result()), facts(end=END, home=home()), p.Prepare(2)),
    "not a word, when its first start was not taken up": ((requested(), preparing(), preparing(2), started(2), result()), facts(end=END, home=home()), p.Prepare(3)),
    "not a word, and no home any more": ((*RUNNING, result()), facts(end=END, home=home("stopped", 20)), p.Finish(status="failed", error="the agent ended without a word")),
    "not a word, and it was to be stopped": ((*RUNNING, result(), STOP), facts(end=END, home=home()), p.Finish(status="cancelled")),
    "not a word twice": ((*RUNNING, result(), preparing(2), started(2), result()), facts(end=END, home=home()), p.Finish(status="failed", error="the agent ended without a word, 2 times")),
    "a plan": ((*RUNNING, PLAN, result()), facts(end=END), p.Propose("1. look")),
    "a plan that is proposed": ((*RUNNING, PLAN, result(), c.PlanProposed(plan="1. look")), facts(end=END), p.Finish(status="plan")),
    "a plan that is its answer": ((*PLANNING, text(), result(final_text="1. look\n")), facts(end=END), p.Propose("1. look")),
    "a plan by its tool, and an answer": ((*PLANNING, PLAN, result(final_text="I wait.")), facts(end=END), p.Propose("1. look")),
    "an answer, and no plan was asked for": ((*RUNNING, text(), result(final_text="1. look")), facts(end=END), p.Finish(status="success")),
    "lost": ((*RUNNING, text()), facts(end=LOST), p.Look("home")),
    "lost, and its session boots again": ((*RUNNING, text()), facts(end=LOST, home=home("resuming", 20)), p.Finish(status="interrupted", error="the sandbox ended")),
    "lost, for it was destroyed": ((*RUNNING, text()), facts(end=LOST, home=home("destroying", 20)), p.Finish(status="cancelled", error=DESTROYED)),
    "lost, and it had finished": ((*RUNNING, text(), result()), facts(end=LOST, home=home("destroyed", 20)), p.Finish(status="success")),
    "over": ((*RUNNING, text(), result(), OVER), facts(), p.Settle()),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_the_next_step(name: str) -> None:
    events, known, expected = STEPS[name]
    assert p.next_step(folded(*events), known) == expected


def ended(**fields: Any) -> Exited:
    return Exited(**{"exit_code": None, "reason": "exited", "duration_ms": 1} | fields)


def lost(cause: Any) -> Lost:
    return Lost(last_n=3, cause=cause)


SAID = (*RUNNING, text())
OUTCOMES: dict[str, tuple[tuple[Any, ...], Exited | Lost, Any, str]] = {
    "completed": ((*SAID, result()), END, "success", ""),
    "completed, and its program was lost afterwards": ((*SAID, result()), lost("node_gone"), "success", ""),
    "completed, and did not leave by itself": ((*SAID, result()), ended(signal="SIGTERM", reason="cancelled"), "success", ""),
    "a plan was asked for, and none came": ((*PLANNING, text(), result()), END, "failed", "the agent proposed no plan"),
    "a plan was asked for, and it failed": ((*PLANNING, text(), result("error", error="402")), END, "failed", "402"),
    "interrupted, with content": ((*SAID, STOP, result("cancelled")), END, "cancelled", ""),
    "interrupted, without": ((*RUNNING, STOP), ended(signal="SIGKILL", reason="cancelled"), "cancelled", ""),
    "interrupted as it was done": ((*SAID, result(), STOP), END, "cancelled", ""),
    "the model's API failed": ((*SAID, result("error", error="API Error: 402", http_status=402)), END, "failed", "API Error: 402 (the model's API answered 402)"),
    "too many turns": ((*SAID, result("max_turns", error="40")), END, "max_turns", "40"),
    "somebody cancelled its exec": (SAID, ended(signal="SIGTERM", reason="cancelled"), "cancelled", "its program was cancelled"),
    "the session was stopped": ((*SAID, result("interrupted")), ended(signal="SIGTERM", reason="stopped"), "cancelled", "the session was stopped"),
    "out of memory": (SAID, ended(signal="SIGKILL", oom=True), "failed", "ran out of memory"),
    "the sandbox out of memory": (SAID, lost("oom"), "failed", "ran out of memory"),
    "killed": (SAID, ended(signal="SIGKILL"), "interrupted", "was ended by SIGKILL without a result"),
    "exit 3": (SAID, ended(exit_code=3), "interrupted", "exited with 3 without a result: oh no"),
    "exit 0 and no result": (SAID, END, "interrupted", "exited with 0 without a result"),
    "no such program": (RUNNING, ended(reason="spawn_failed", message="no such file"), "failed", "did not start: no such file"),
    "orphaned": (SAID, ended(signal="SIGTERM", reason="orphaned"), "interrupted", "nobody has kept its program alive"),
    "runnerd died": (SAID, lost("runnerd_died"), "interrupted", "the recorder of the sandbox died"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTCOMES)
def test_how_it_ended(name: str) -> None:
    events, end, status, error = OUTCOMES[name]
    found = outcome(folded(*events), end, "oh no")
    assert found.status == status
    assert error in (found.error or ""), found
    assert bool(error) == bool(found.error)


def test_a_plan_of_a_turn_that_was_interrupted_is_none() -> None:
    assert outcome(folded(*RUNNING, PLAN, STOP, result()), END) == Outcome(status="cancelled")


def act(turn: Turn, told: Told, at_s: float, *, protocol: bool = True) -> tuple[str | None, float | None]:
    return due(turn, told, at_s=at_s, holds_stdin=protocol, has_protocol=protocol)


def test_its_input_ends_once_it_is_done_and_nothing_is_left() -> None:
    done = folded(*SAID, result())
    assert act(folded(*SAID), Told(), 0) == (None, None)
    assert act(done, Told(), 0) == ("eof", None)
    assert act(folded(*SAID, a.TaskStarted(source_n=4, task_id="a"), result()), Told(), 0) == (None, None)
    assert act(replace(done, messages=folded(*RUNNING, QUEUED).messages), Told(), 0) == (None, None)
    assert act(done, Told(eof_at=1.0), 1.0 + EOF_GRACE_S - 1) == (None, 1.0)
    assert act(done, Told(eof_at=1.0), 1.0 + EOF_GRACE_S) == ("cancel", None)
    assert act(done, Told(eof_at=1.0, cancelled_at=40.0), 41.0) == (None, CANCEL_AGAIN_S - 1)


def test_an_agent_that_works_on_behind_the_end_of_its_input_is_not_ended() -> None:
    on = folded(*SAID, result(), text("more", n=6))
    assert act(on, Told(eof_at=1.0, worked_at=999.0), 1000.0) == (None, None)
    done = folded(result(n=7), turn=on)
    assert act(done, Told(eof_at=1.0, worked_at=999.0), 1000.0) == (None, EOF_GRACE_S - 1)
    assert act(done, Told(eof_at=1.0, worked_at=999.0), 999.0 + EOF_GRACE_S) == ("cancel", None)


def test_a_program_whose_input_ended_at_the_start_is_ended_when_it_hangs_behind_its_answer() -> None:
    """Codex and Gemini CLI: nothing else would ever end them, or their turn."""

    def at(turn: Turn, at_s: float, **told: float) -> tuple[str | None, float | None]:
        return act(turn, Told(worked_at=100.0, **told), at_s, protocol=False)

    done = folded(*SAID, result())
    assert at(folded(*SAID), 1e6) == (None, None), "it has not answered"
    assert at(folded(*SAID, a.TaskStarted(source_n=4, task_id="a"), result()), 1e6) == (None, None), (
        "it waits for its task"
    )
    assert at(folded(*SAID, result(), text("more", n=6)), 1e6) == (None, None), "it goes on"
    assert at(done, 100.0) == (None, LINGER_S)
    assert at(done, 100.0 + LINGER_S) == ("cancel", None)
    assert at(folded(*SAID, result("error"), QUEUED), 100.0 + LINGER_S) == ("cancel", None), "it never reads a message"
    assert at(done, 200.0, cancelled_at=195.0) == (None, CANCEL_AGAIN_S - 5)


def test_an_interrupt_asks_then_signals_then_kills() -> None:
    turn, told = folded(*SAID, STOP), Told()
    assert act(turn, told, 0) == ("ask", None)
    told.asked_at = 0.0
    assert act(turn, told, 0) == ("eof", None)
    told.eof_at = 0.0
    assert act(turn, told, 1) == (None, 2.0)
    assert act(turn, told, 3) == ("signal", None)
    told.signalled_at = 3.0
    assert act(turn, told, 5) == (None, 1.0)
    assert act(turn, told, 6) == ("cancel", None)
    told.cancelled_at = 6.0
    assert act(turn, told, 7) == (None, CANCEL_AGAIN_S - 1)
    assert act(turn, Told(), 0, protocol=False) == ("signal", None)
