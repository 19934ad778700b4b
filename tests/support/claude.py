"""A stand-in of Claude Code for tests: reads lines of JSON, prints lines as the real one does (tests/bridge/recordings), and does what
the prompt says. Standard library alone; runs in a session.

say TEXT          one text, and a result
lines COUNT       so many tools, one after the other, then a result
steps COUNT       the same, 10 ms apart
hold [TEXT]       a text, and then nothing until it is asked to stop, is told more, or is ended
tree              as hold, with a process of its own session that stays behind
quiet             a result without a word
plan TEXT         proposes a plan
die CODE          ends without a result
sub               a sub-agent that goes on behind the first result
work              a tool that ends when its hook has heard something (as image/agents has it), which it then says
deaf              closes its input, and works as above once what lay for its hook was taken back
delegate [TEXT]   calls a sub-agent that never comes back
sh COMMAND        runs it, says what it printed and how it ended
env NAME          says the value's length, and whether it is the resumed conversation
count TEXT        says how many characters the text has, and its digest
fail STATUS       the model's API refused
ask COUNT         so many calls of the model by the gateway, a tool for each; tries again for as long as it takes, as the real one does
                  some times, unless it is told that it may not (401, 402, 403)
garbage           lines and bytes that are none of its format, between a text and a tool
huge MEGABYTES    a line of that size
killed            by SIGKILL
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import Any

SOURCE = __file__


def out(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Agent:
    def __init__(self, words: list[str]) -> None:
        self.session = words[words.index("--resume") + 1] if "--resume" in words else str(uuid.uuid4())
        self.resumed = "--resume" in words
        self.mode = words[words.index("--permission-mode") + 1]
        self.messages = 0
        self.model = words[words.index("--model") + 1] if "--model" in words else "fake-model"
        self.taken: set[str | None] = set()
        # Calls of the model that were answered, and what they used by its own word.
        self.calls, self.used = 0, {"inputTokens": 0, "outputTokens": 0}

    def text(self, text: str, parent: str | None = None) -> None:
        self._assistant({"type": "text", "text": text}, parent)

    def tool(self, id: str, name: str, input: Any, result: str = "done", parent: str | None = None) -> None:
        self._assistant({"type": "tool_use", "id": id, "name": name, "input": input}, parent)
        block = {"type": "tool_result", "tool_use_id": id, "content": result, "is_error": False}
        out(
            type="user",
            message={"role": "user", "content": [block]},
            parent_tool_use_id=parent,
            session_id=self.session,
        )

    def _assistant(self, block: dict[str, Any], parent: str | None) -> None:
        self.messages += 1
        usage = {"input_tokens": 100, "output_tokens": 1}
        message = {
            "id": f"m{self.messages}",
            "role": "assistant",
            "model": "fake-model",
            "content": [block],
            "usage": usage,
        }
        out(type="assistant", message=message, parent_tool_use_id=parent, session_id=self.session)

    def result(self, text: str | None, **more: Any) -> None:
        used: dict[str, Any] = {"fake-model": {"inputTokens": 100, "outputTokens": 10, "costUSD": 0.00045}}
        if self.calls:
            # claude-sonnet-4-5 at 3 and 15 USD a million.
            cost = (self.used["inputTokens"] * 3 + self.used["outputTokens"] * 15) / 1e6
            used = {self.model: {**self.used, "costUSD": cost}}
        line = {"subtype": "success", "is_error": False, "terminal_reason": "completed", "result": text} | more
        out(type="result", session_id=self.session, duration_ms=5, model_usage_since_last_result=used, **line)

    def do(self, prompt: str) -> None:
        out(
            type="system",
            subtype="init",
            session_id=self.session,
            model="fake-model",
            tools=[],
            permissionMode=self.mode,
        )
        verb, _, rest = prompt.strip().partition(" ")
        match verb:
            case "lines" | "steps":
                for number in range(1, int(rest) + 1):
                    time.sleep(0.01 if verb == "steps" else 0)
                    self.tool(f"t{number}", "Bash", {"command": f"echo {number}"}, str(number))
                self.result("all done")
            case "hold" | "tree":
                if verb == "tree":
                    subprocess.Popen(["sleep", "987"], start_new_session=True)
                self.text(rest or "working")
            case "work":
                self._assistant({"type": "tool_use", "id": "w1", "name": "Bash", "input": {}}, None)
                self.worked("w1", self.hook())
            case "deaf":
                os.close(0)
                self._assistant({"type": "tool_use", "id": "d1", "name": "Agent", "input": {}}, None)
                while not self.laid():
                    time.sleep(0.02)
                while self.laid():
                    time.sleep(0.02)
                self.worked("d1", self.hook())
                os._exit(0)
            case "delegate":
                self._assistant({"type": "tool_use", "id": "d1", "name": "Agent", "input": {"prompt": rest}}, None)
            case "quiet":
                self.result("")
            case "plan":
                self.tool("p1", "ExitPlanMode", {"plan": rest}, "waits for approval")
                self.result("")
            case "die":
                sys.stderr.write("something broke\n")
                sys.stdout.flush()
                os._exit(int(rest))
            case "sub":
                self.text("I have started somebody")
                out(
                    type="system",
                    subtype="task_started",
                    task_id="a1",
                    tool_use_id="t1",
                    description="looks",
                    session_id=self.session,
                )
                self.result("started")
                self.text("looking", "t1")
                out(
                    type="system",
                    subtype="task_notification",
                    task_id="a1",
                    tool_use_id="t1",
                    status="completed",
                    session_id=self.session,
                )
                self.text("it is found")
                self.result("it is found")
            case "sh":
                done = subprocess.run(["sh", "-c", rest], capture_output=True, text=True)
                self.text(f"{done.stdout}{done.stderr}({done.returncode})")
                self.result("done")
            case "env":
                self.text(f"{len(os.environ.get(rest, ''))} {'resumed' if self.resumed else 'new'} {self.mode}")
                self.result("said")
            case "count":
                self.text(f"{len(rest)} {hashlib.sha256(rest.encode()).hexdigest()}")
                self.result("counted")
            case "fail":
                self.result(
                    f"API Error: {rest}", is_error=True, terminal_reason="api_error", api_error_status=int(rest)
                )
            case "ask":
                for number in range(1, int(rest) + 1):
                    if not self.ask(number):
                        return
                self.result("all done")
            case "garbage":
                self.text("before")
                for line in (
                    b"Segmentation fault",
                    b"{",
                    b"[1, 2]",
                    b"\xff\xfe\x00\x1b[31m",
                    b'{"type": "new"}',
                    b"null",
                    b"",
                ):
                    sys.stdout.buffer.write(line + b"\n")
                sys.stdout.flush()
                self.tool("t1", "Bash", {"command": "true"})
                self.result("after")
            case "huge":
                self.text("before")
                self.text("x" * (int(rest) << 20))
                self.tool("t1", "Bash", {"command": "true"})
                self.result("after")
            case "killed":
                self.text("before")
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                self.text(rest or prompt)
                self.result(rest or prompt)

    def ask(self, number: int) -> bool:
        """Whether the model has answered; else the turn is over."""
        for attempt in range(1, 1000):
            status: int | None = None
            try:
                text = self.answer(f"{os.environ['SANDREEL_EXEC_ID']} asks {number}")
            except urllib.error.HTTPError as error:
                status = error.code
                if status in (401, 402, 403):
                    words = {"is_error": True, "terminal_reason": "api_error", "api_error_status": status}
                    self.result(f"API Error: {status}", **words)
                    return False
            except (OSError, HTTPException, ValueError):
                pass  # it is not there, or the reply was cut
            else:
                self.tool(f"c{number}", "Bash", {"command": f"echo {number}"}, text)
                return True
            wait = {"attempt": attempt, "max_retries": 1000, "retry_delay_ms": 50, "error_status": status}
            out(type="system", subtype="api_retry", session_id=self.session, **wait)
            time.sleep(0.05)
        raise SystemExit("the model has not answered a thousand times")

    def answer(self, prompt: str) -> str:
        """The model's, of a stream that came to its end. Raises ValueError for one that did not."""
        body = {
            "model": self.model,
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": prompt}],
        }
        headers = {"Authorization": f"Bearer {os.environ['ANTHROPIC_AUTH_TOKEN']}", "Content-Type": "application/json"}
        url = f"{os.environ['ANTHROPIC_BASE_URL']}/v1/messages"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        text, told, whole = "", {"input_tokens": 0, "output_tokens": 0}, False
        with urllib.request.urlopen(request, timeout=30) as reply:
            for line in reply:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    told |= event.get("message", {}).get("usage", {}) | event.get("usage", {})
                    text += event.get("delta", {}).get("text", "")
                    whole = whole or event["type"] == "message_stop"
        if not whole:
            raise ValueError("the reply was cut")
        self.calls += 1
        self.used["inputTokens"] += told["input_tokens"]
        self.used["outputTokens"] += told["output_tokens"]
        return text

    def takes(self, uuid: str | None) -> bool:
        """Each message once, and says so."""
        new = uuid not in self.taken
        for state in ("queued", "started") if new else ("completed",):
            out(type="command_lifecycle", command_uuid=uuid, state=state, session_id=self.session)
        self.taken.add(uuid)
        return new

    def worked(self, id: str, heard: str) -> None:
        block = {"type": "tool_result", "tool_use_id": id, "content": "worked", "is_error": False}
        message = {"role": "user", "content": [block]}
        out(type="user", message=message, parent_tool_use_id=None, session_id=self.session)
        self.text(f"heard {heard}")
        self.result(f"heard {heard}")

    def laid(self) -> list[Path]:
        return sorted((Path.cwd().parent / ".sandreel" / "steer" / os.environ["SANDREEL_EXEC_ID"]).glob("steer-*.json"))

    def hook(self) -> str:
        """What was laid for it, as the hook takes it."""
        while not (found := self.laid()):
            time.sleep(0.05)
        texts = [json.loads(path.read_bytes())["text"] for path in found]
        for path in found:
            path.rename(path.with_name(f"consumed.{path.name}"))
        return " and ".join(texts)

    def stop(self, request: dict[str, Any]) -> None:
        out(type="control_response", response={"subtype": "success", "request_id": request["request_id"]})
        self.result(None, subtype="error_during_execution", is_error=True, terminal_reason="aborted_streaming")


def main() -> None:
    agent = Agent(sys.argv[1:])
    for raw in sys.stdin:
        line = json.loads(raw)
        if line["type"] == "control_request":
            agent.stop(line)
        elif agent.takes(line.get("uuid")):
            agent.do(line["message"]["content"])


if __name__ == "__main__":
    main()
