"""A fifth agent, added as docs/agents.md says: this file, and a row in the table, which a test puts there for its time.

Its program reads one prompt from stdin and prints JSON lines. A prompt `sh COMMAND` runs it as its tool; any other is said again.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from msgspec import Struct

from sandreel_bridge.adapters.adapter import HOME, KEY_NAME, Adapter, Launch, RunSpec, with_instructions
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t

NAME = "fifth"
PROGRAM = f"""#!{sys.executable} -I
import json, subprocess, sys
def out(**line):
    print(json.dumps(line), flush=True)
conversation = sys.argv[2] if sys.argv[1:2] == ["--resume"] else "c-1"
prompt = sys.stdin.read()
out(type="begun", conversation=conversation)
if prompt.startswith("sh "):
    out(type="tool", id="t1", command=prompt[3:])
    done = subprocess.run(prompt[3:], shell=True, capture_output=True, text=True)
    out(type="tool_done", id="t1", output=done.stdout, failed=bool(done.returncode))
for piece in ("heard ", prompt):
    out(type="piece", text=piece)
out(type="text", text="heard " + prompt)
out(type="news")
out(type="done", used={{"input_tokens": 7, "output_tokens": 3}})
"""


def launch(spec: RunSpec) -> Launch:
    return Launch(
        argv=[NAME, *(["--resume", spec.resume] if spec.resume else [])],
        cwd=spec.workdir,
        env={"FIFTH_URL": f"{spec.gateway.base_url}/openai/v1", "FIFTH_HOME": f"{HOME}/.fifth"},
        secret_env={KEY_NAME: spec.gateway.key},
        stdin=with_instructions(spec).encode(),
    )


class _Line(Struct, frozen=True):
    type: str
    conversation: str | None = None
    id: str = ""
    command: str = ""
    text: str = ""
    output: Any = None
    failed: bool = False
    used: t.Usage | None = None


_line = msgspec.json.Decoder(_Line).decode


class FifthLines(Struct):
    conversation: str | None = None
    answered: bool = False

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        said = _line(line)
        match said.type:
            case "begun":
                self.conversation = said.conversation
                return [a.RunStarted(source_n=n, agent=NAME, agent_session_id=said.conversation)]
            case "tool" if said.id:
                return [a.ToolUse(source_n=n, tool_use_id=said.id, tool_name="sh", input={"command": said.command})]
            case "tool_done" if said.id:
                return [a.ToolResult(source_n=n, tool_use_id=said.id, output=said.output, is_error=said.failed)]
            case "piece":
                return [Typed(said.text)]
            case "text":
                return [a.AgentText(source_n=n, text=said.text)]
            case "done":
                self.answered = True
                where = self.conversation
                return [a.AgentResult(source_n=n, status="completed", agent_session_id=where, usage=said.used)]
        return None

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        return [] if self.answered else [a.AgentResult(source_n=n, status="interrupted")]


ADAPTER = Adapter(name=NAME, dialect="openai", launch=launch, parser=lambda _: FifthLines())
