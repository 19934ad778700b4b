"""A coding agent's run as a person reads it: what it says, the tools as they begin and end, what it used. Pure."""

from __future__ import annotations

from typing import NamedTuple

from sandreel_core.agent import AgentItem, Typed
from sandreel_core.cli.agent_diff import diff
from sandreel_core.cli.agent_words import one_line, plain_lines, telling
from sandreel_core.cli.text import cut, duration
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.messages import output_text

_OUTPUT_LINES = 12  # of a tool's output; all of it stands in the log, and in --json
COLUMNS = 120  # a line of a tool is cut there, also on a wider terminal
_LEAST_COLUMNS = 20  # and not before, however narrow it is
# Sub-agents of sub-agents stand further to the right, up to here.
_MAX_DEPTH = 8
# Tools whose names are remembered until their end is told.
_REMEMBERED = 1024
# How long a tool took is worth a word from there on.
_LONG_S = 1.0


class _Tool(NamedTuple):
    """One that was shown. `about`: what its line says of its input; `depth`: of the sub-agent that uses it; `began_s`: when, where that is
    known."""

    name: str
    about: str
    depth: int
    began_s: float | None


_NO_TOOL = _Tool("", "", 0, None)


class AgentView:
    """Agent items as text for a terminal, piece by piece; none of it steers the terminal.

    typed     also show text while it is being typed, which is for a terminal and not for a file
    columns   of the terminal
    """

    def __init__(self, *, colours: bool, typed: bool, columns: int = COLUMNS) -> None:
        self._colours = colours
        self._typed = typed
        self._columns = min(columns, COLUMNS)
        # What was shown of the text that is coming, by the tool use that it belongs to; only the last can be gone on with.
        self._open: tuple[str | None, list[str]] | None = None
        # A text that was typed, and whose line something else has ended before its event came.
        self._typed_before: tuple[str | None, str] | None = None
        self._tools: dict[str, _Tool] = {}
        # Uses of tools whose tasks have not ended: what such a tool answers is not yet what comes of it.
        self._under_way: set[str] = set()
        # The tool whose beginning nothing but remarks have followed: its end needs no name.
        self._last_tool: str | None = None
        self._at_s: float | None = None
        # What has just been said, and need not be said again at once: of the run, and of what went wrong.
        self._run: str | None = None
        self._wrong: str | None = None

    def text(self, item: AgentItem, at_s: float | None = None) -> str:
        """What to write for it; it may end within a line. `at_s`: when it was stored, by whichever clock, for how long tools take."""
        self._at_s = at_s
        if isinstance(item, Typed | a.AgentText):
            self._last_tool = None
            if isinstance(item, a.AgentText):
                return self._said(item)
            return self._piece(item) if self._typed else ""
        lines = self._lines(item)
        return self.closed() + "".join(f"{line}\n" for line in lines) if lines else ""

    @property
    def within_line(self) -> bool:
        """Whether a piece of text left its line open."""
        return self._open is not None

    def paint(self, style: str, text: str) -> str:
        """In a style (the number of an SGR sequence), where there are colours."""
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text

    def closed(self) -> str:
        """Ends the line that a piece of text left open."""
        if self._open is None:
            return ""
        self._typed_before = (self._open[0], "".join(self._open[1]))
        self._open = None
        return "\n"

    def _piece(self, item: Typed) -> str:
        margin = self._margin(item.parent)
        before = self.closed() if self._open is not None and self._open[0] != item.parent else ""
        text = f"\n{margin}".join(plain_lines(item.text))
        if self._open is None:
            self._open = (item.parent, [item.text])
            return before + margin + text
        self._open[1].append(item.text)
        return text

    def _said(self, item: a.AgentText) -> str:
        """All of it, or the rest of what was shown as it was typed."""
        if self._typed_before == (item.parent, item.text):
            self._typed_before = None
            return ""
        shown = "".join(self._open[1]) if self._open is not None and self._open[0] == item.parent else ""
        if not shown or not item.text.startswith(shown):
            before = self.closed()
            margin = self._margin(item.parent)
            return before + "".join(f"{margin}{line}\n" for line in plain_lines(item.text.strip("\n")))
        margin = self._margin(item.parent)
        self._open = None
        return f"\n{margin}".join(plain_lines(item.text[len(shown) :])) + "\n"

    def _lines(self, item: a.AgentEvent) -> list[str]:
        margin = self._margin(item.parent)
        match item:
            case a.RunStarted():
                return self._began(item)
            case a.ToolUse():
                return self._tool(item, margin)
            case a.ToolResult():
                return self._result(item, margin)
            case a.TaskStarted():
                return self._task(item, margin)
            case a.TaskSettled():
                self._under_way.discard(item.parent or "")
                return [self._dim(f"{margin}· task {one_line(item.status or 'ended')}")]
            case a.AgentError(goes_on=True):
                return [self._yellow(f"{margin}· {one_line(item.message)}")]
            case a.AgentError():
                self._wrong = item.message
                return [self._red(f"{margin}! {one_line(item.message)}")]
            case a.AgentUsage() if not item.provisional:
                return [self._dim(f"{margin}· {_usage(item.usage)}")]
            case a.AgentResult():
                return self._end(item)
        return []

    def _began(self, item: a.RunStarted) -> list[str]:
        """Claude Code says it again for every answer."""
        words = [item.agent, item.model, f"conversation {item.agent_session_id}" if item.agent_session_id else ""]
        run = one_line(", ".join(word for word in words if word))
        again, self._run = run == self._run, run
        return [] if again else [self._dim(f"· {run}")]

    def _task(self, item: a.TaskStarted, margin: str) -> list[str]:
        """What its tool's line says already is not said again."""
        if item.parent is not None and len(self._under_way) < _REMEMBERED:
            self._under_way.add(item.parent)
        what = one_line(item.description or item.task_id)
        known = self._tools.get(item.parent or "", _NO_TOOL).about == what
        return [] if known else [self._dim(f"{margin}· task began: {what}")]

    def _tool(self, item: a.ToolUse, margin: str) -> list[str]:
        name, about = one_line(item.tool_name), telling(item.input)
        if len(self._tools) >= _REMEMBERED:
            del self._tools[next(iter(self._tools))]
        self._tools[item.tool_use_id] = _Tool(name, about, self._depth(item.parent), self._at_s)
        self._last_tool = item.tool_use_id
        head = f"{margin}▸ {self._bold(name)} {self._cut(about, margin, len(name) + 3)}".rstrip()
        changes = plain_lines("\n".join(diff(item.input)))
        return [head, *(f"{margin}  {self._changed(self._cut(line, margin))}" for line in changes if line)]

    def _changed(self, line: str) -> str:
        if line.startswith("-"):
            return self._red(line)
        return self._green(line) if line.startswith("+") else self._dim(line)

    def _result(self, item: a.ToolResult, margin: str) -> list[str]:
        output = output_text(item.output)
        goes_on = item.tool_use_id in self._under_way
        most = 1 if goes_on else _OUTPUT_LINES
        lines = plain_lines(output.strip("\n"))[: most + 1] if output.strip() else []
        total = output.strip("\n").count("\n") + 1
        if len(lines) > most:
            lines[-1] = f"… {total - most:,} more line{'s' if total - most > 1 else ''}"
        body = [self._dim(f"{margin}  {self._cut(line, margin)}") for line in lines]
        tool = self._tools.get(item.tool_use_id, _NO_TOOL)
        long = "" if goes_on else self._how_long(tool)
        below = self._last_tool == item.tool_use_id  # what it belongs to stands right above
        self._last_tool = None
        if below and body and not item.is_error and not long:
            return body
        end = "failed" if item.is_error else "" if goes_on else "done"
        head = " ".join(word for word in ("✗" if item.is_error else "◂", tool.name, end, long) if word)
        if tool.about and not below:
            head += f": {self._cut(tool.about, margin, len(head) + 2)}"
        return [(self._red if item.is_error else self._dim)(f"{margin}{head}"), *body]

    def _how_long(self, tool: _Tool) -> str:
        if self._at_s is None or tool.began_s is None or self._at_s - tool.began_s < _LONG_S:
            return ""
        return f"in {duration(self._at_s - tool.began_s)}"

    def _end(self, item: a.AgentResult) -> list[str]:
        words = [item.status.replace("_", " ")]
        words += [f"in {item.duration_ms / 1000:.1f} s"] if item.duration_ms is not None else []
        if item.usage is not None and (item.usage.input_tokens or item.usage.output_tokens):
            words.append(f"· {_usage(item.usage)}")
        elif item.thread_usage is not None:
            words.append(f"· the conversation so far: {_usage(item.thread_usage)}")
        line = f"■ {' '.join(words)}"
        good = item.status == "completed"
        why = [f"  {one_line(item.error)}"] if item.error and item.error != self._wrong else []
        return [self._bold(line) if good else self._red(line), *(self._red(each) for each in why)]

    def _depth(self, parent: str | None) -> int:
        return 0 if parent is None else min(self._tools.get(parent, _NO_TOOL).depth + 1, _MAX_DEPTH)

    def _margin(self, parent: str | None) -> str:
        return "│ " * self._depth(parent)

    def _cut(self, line: str, margin: str, used: int = 2) -> str:
        """What fits behind the margin and so many columns more."""
        return cut(line, max(self._columns - len(margin) - used, _LEAST_COLUMNS))

    def _dim(self, text: str) -> str:
        return self.paint("2", text)

    def _bold(self, text: str) -> str:
        return self.paint("1", text)

    def _green(self, text: str) -> str:
        return self.paint("32", text)

    def _yellow(self, text: str) -> str:
        return self.paint("33", text)

    def _red(self, text: str) -> str:
        return self.paint("31", text)


def _usage(usage: t.Usage) -> str:
    cached = f" ({usage.cache_read_input_tokens:,} from cache)" if usage.cache_read_input_tokens else ""
    cost = f", ${usage.cost_micro_usd / 1e6:.4f}" if usage.cost_micro_usd is not None else ""
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out{cost}"
