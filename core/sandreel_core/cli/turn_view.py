"""A turn as a person reads it: who was asked what, the agent's run, what was said to it meanwhile, how it ended. Pure."""

from __future__ import annotations

from sandreel_core.agent import Typed
from sandreel_core.cli.agent_view import COLUMNS, AgentView
from sandreel_core.cli.agent_words import one_line, telling
from sandreel_core.cli.text import clean, cut, duration
from sandreel_core.cli.usage_table import dollars, tokens
from sandreel_core.client.items import CaughtUp, Gap
from sandreel_core.client.turn_items import TurnEntry, TurnItem
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.turn import PLAN_TOOL

_PROMPT_LINES = 6  # of the prompt that is shown again; all of it stands in --json
# Tools that are under way and shown as such; more are counted alone.
_REMEMBERED = 256
_NS = 1_000_000_000


class TurnView:
    """A turn's items as text for a terminal, piece by piece; none of it steers the terminal. See AgentView."""

    def __init__(self, turn: str, session: str, *, colours: bool, typed: bool, columns: int = COLUMNS) -> None:
        self._turn = turn
        self._session = session
        self._agent = AgentView(colours=colours, typed=typed, columns=columns)
        self._columns = min(columns, COLUMNS)
        self._paint = self._agent.paint
        self._phase = "waiting for the session"
        self._began_ns = 0
        self._newest_ns = 0
        self._in = self._out = 0
        self._wrong: str | None = None
        self._model: str | None = None
        self._handed_over: str | None = None
        self._last_text = ""  # of what the agent itself said
        # Of the main thread, by their ids, in the order in which they began.
        self._tools: dict[str, str] = {}

    @property
    def within_line(self) -> bool:
        """Whether what was written last is a line that has not ended."""
        return self._agent.within_line

    @property
    def known_s(self) -> float:
        """From the turn's first event to the newest that was shown, by the server's clock."""
        return (self._newest_ns - self._began_ns) / _NS if self._began_ns else 0.0

    def doing(self) -> str:
        """What goes on now, in a few words."""
        words = list(self._tools.values())
        phase = self._phase
        if words and phase == "working":
            phase = words[-1] if len(words) == 1 else f"{words[-1]} (and {len(words) - 1} more)"
        used = f" · {tokens(self._in)} in, {tokens(self._out)} out" if self._in or self._out else ""
        return f"{phase}{used}"

    def text(self, item: TurnItem) -> str:
        """What to write for it; it may end within a line."""
        if isinstance(item, Typed):
            return self._agent.text(item)
        if isinstance(item, CaughtUp):
            return ""
        if isinstance(item, Gap):
            return self.closed() + self._red(f"! {clean(item.why)}") + "\n"
        if isinstance(item.data, t.TurnRequested):
            self._began_ns = item.stored_ns
        self._newest_ns = item.stored_ns
        if isinstance(item.data, a.AgentEvent):
            return self._said(item.data, item.stored_ns / _NS)
        lines = self._lines(item)
        return self.closed() + "".join(f"{line}\n" for line in lines) if lines else ""

    def closed(self) -> str:
        """Ends the line that a piece of text left open."""
        return self._agent.closed()

    def _said(self, event: a.AgentEvent, at_s: float) -> str:
        match event:
            case a.AgentUsage():
                if not event.provisional:
                    self._in += event.usage.input_tokens
                    self._out += event.usage.output_tokens
                return ""
            case a.AgentResult():
                # How the turn ended is said once, at its end, by who decides it; a turn may have several answers.
                if event.error and event.error != self._wrong:
                    self._wrong = event.error
                    return self.closed() + self._red(f"! {one_line(event.error)}") + "\n"
                return self.closed()
            case a.RunStarted(model=model):
                # Said again for every answer; the agent's name stands in the turn's first line.
                return "".join(f"{self.closed()}{line}\n" for line in self._of(model))
            case a.AgentError(goes_on=False):
                self._wrong = event.message
            case a.TaskStarted(parent=parent) | a.TaskSettled(parent=parent) if self._is_command(parent):
                return ""
            case a.ToolUse(tool_name=name) if name == PLAN_TOOL and event.parent is None:
                # What it is given is shown as the plan, and that its call is held back is how it is handed over.
                self._handed_over = event.tool_use_id
                return self.closed()
            case a.ToolResult(tool_use_id=id) if id == self._handed_over:
                return ""
            case a.ToolUse() if event.parent is None and len(self._tools) < _REMEMBERED:
                self._tools[event.tool_use_id] = cut(f"{one_line(event.tool_name)} {telling(event.input)}".rstrip(), 60)
            case a.ToolResult():
                self._tools.pop(event.tool_use_id, None)
            case a.AgentText(parent=None, text=text):
                self._last_text = text
        return self._agent.text(event, at_s)

    def _is_command(self, tool_use_id: str | None) -> bool:
        """Whether that is a command which is waited for: Claude Code calls it a task, and it is the tool that is shown."""
        return self._tools.get(tool_use_id or "", "").startswith("Bash")

    def _lines(self, item: TurnEntry) -> list[str]:
        by = f" by {clean(item.event.actor)}" if item.event.actor else ""
        match item.data:
            case t.TurnRequested():
                return self._requested(item.data)
            case t.TurnPreparing(attempt=attempt, model=model):
                self._phase = "starting the agent"
                again = [self._dim(f"· it ended without a word: attempt {attempt}")] if attempt > 1 else []
                return [*again, *self._of(model)]
            case t.TurnStarted():
                self._phase = "working"
            case t.TurnInterrupting():
                self._phase = "interrupting"
                return [self._dim(f"· interrupted{by}")]
            case t.SteerQueued(text=text):
                return [self._bold(f"» {line}") for line in self._few(text)]
            case t.SteerConsumed(message_ids=ids):
                return [self._dim(f"· the agent has read {'it' if len(ids) == 1 else f'{len(ids)} messages'}")]
            case t.SteerRequeued():
                return [self._dim("· not read: it opens the next turn")]
            case t.PlanProposed(plan=plan) if plan.strip() == self._last_text.strip():
                return [self._bold("▌ that is the plan")]
            case t.PlanProposed(plan=plan):
                return [self._bold("▌ the plan"), *(f"▌ {clean(line)}".rstrip() for line in plan.strip().split("\n"))]
            case t.PlanApproved(next_turn=next_turn):
                return [self._bold(f"✓ approved{by}: it goes on in turn {clean(next_turn)}")]
            case t.PlanRejected(reason=reason):
                return [self._bold(f"✗ rejected{by}{': ' + one_line(reason) if reason else ''}")]
            case t.TurnFinished():
                return self._finished(item.data)
        return []

    def _of(self, model: str | None) -> list[str]:
        """Which model it is, where that was not said yet: some programs do not tell."""
        if model in (None, self._model):
            return []
        self._model = model
        return [self._dim(f"· {one_line(model or '')}")]

    def _requested(self, asked: t.TurnRequested) -> list[str]:
        conversation = self._conversation(asked)
        if conversation:
            # One of a conversation may stand behind those that were asked for before it, of which its own events do not tell.
            self._phase = "waiting for the session, or for a turn before this one"
        words = [asked.agent, "plan only" if asked.permission_mode == "plan" else "", f"turn {self._turn}"]
        words += [f"session {self._session}", conversation]
        files = [f"+ {clean(each.path)}" for each in asked.attachments]
        prompt = [self._bold(f"> {line}") for line in self._few(asked.prompt or "(the prompt is in the object store)")]
        head = self._dim(f"● {clean(' · '.join(word for word in words if word))}")
        return [head, *prompt, *(self._dim(f"  {line}") for line in files)]

    def _conversation(self, asked: t.TurnRequested) -> str:
        """A turn that begins one bears its name."""
        named = asked.conversation_id not in (None, self._turn)
        return f"conversation {asked.conversation_id}" if named else ""

    def _finished(self, end: t.TurnFinished) -> list[str]:
        self._tools.clear()
        self._phase = "ended"
        cost = f" · {dollars(end.usage.cost_micro_usd)}" if end.usage.cost_micro_usd else ""
        line = f"■ {end.status.replace('_', ' ')} in {duration(self.known_s)}{cost}"
        why = [self._red(f"  {one_line(end.error)}")] if end.error and not _told(end.error, self._wrong) else []
        return [(self._bold if end.status in ("success", "plan") else self._red)(line), *why]

    def _few(self, text: str) -> list[str]:
        lines = [cut(clean(line.replace("\t", "    ")), self._columns - 2) for line in text.strip().split("\n")]
        more = len(lines) - _PROMPT_LINES
        return lines if more <= 0 else [*lines[:_PROMPT_LINES], f"… {more} more lines"]

    def _dim(self, text: str) -> str:
        return self._paint("2", text)

    def _bold(self, text: str) -> str:
        return self._paint("1", text)

    def _red(self, text: str) -> str:
        return self._paint("31", text)


def _told(error: str, before: str | None) -> bool:
    """Whether what was shown before says it: the bridge adds the status of the model's API."""
    return before is not None and error.startswith(before)
