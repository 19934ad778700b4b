"""Runs in the sandbox, beside OpenCode: its server as a program that reads lines and prints lines. Standard library alone.

    python3 -IS opencode.py --dir DIR --agent AGENT --model PROVIDER/MODEL [--resume SESSION]

Every line of stdin is one JSON object: {"type": "user", "uuid": …, "text": …} says something to the agent, at any time, and
{"type": "interrupt"} lets it stop what it is doing. Every line of stdout is one event of the server's about the conversation or one of
its sub-agents', as the server says it; or `command_lifecycle`, what has become of a message; or `session`, the conversation's id. At
the end of its input it finishes what it has begun, and ends. Its adapter (`sandreel_bridge.adapters.opencode`) brings it along.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

START_S = 60.0  # 8 s were seen at one CPU, and 15 beside others
PROBE_S = 1.0  # a request that comes before the server is ready may never be answered
REQUEST_S = 60.0
LEAVE_S = 2.0
# After a failure or an interrupt the session is idle at once, says a moment later what has become of the tool and the text, and is
# idle again: the first time is kept back so long, so that the end is told once, and last. So it is while a message waits, which a
# session that is at its end when it comes may take up now, or never.
AFTERMATH_S = 1.0
_QUEUED = 1024
_LISTENING = re.compile(rb"listening on http://127\.0\.0\.1:(\d+)")
# What of the server's events is told. All else is for screens, or repeats what one of these says.
_TOLD = frozenset(
    {
        *("message.updated", "message.part.updated", "message.part.delta"),
        *("session.status", "session.idle", "session.error"),
    }
)
# Of an agent that nobody sits in front of.
_NEVER_ASK = [
    {"permission": each, "pattern": "*", "action": "deny"} for each in ("question", "plan_enter", "plan_exit")
]
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Failure(Exception):
    """What ends the run, in a sentence."""


class Server:
    """`opencode serve` on a port of loopback, behind a password that only this process knows."""

    def __init__(self, folder: str) -> None:
        password = secrets.token_urlsafe(24)
        self.headers = {
            "Authorization": "Basic " + base64.b64encode(b"opencode:" + password.encode()).decode(),
            "Content-Type": "application/json",
        }
        self.process = subprocess.Popen(
            ["opencode", "serve", "--hostname", "127.0.0.1", "--port", "0"],
            cwd=folder,
            env={**os.environ, "OPENCODE_SERVER_PASSWORD": password},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self.port = 0

    def await_ready(self) -> None:
        """Raises Failure when it does not come up."""
        said, deadline = self.process.stdout, time.monotonic() + START_S
        assert said is not None  # noqa: S101 - a pipe was asked for
        found, last = None, b""
        while found is None:
            last = said.readline() or _ended(self.process.wait(), last)
            found = _LISTENING.search(last)
        self.port = int(found.group(1))
        threading.Thread(target=said.read, daemon=True).start()
        while True:
            try:
                self.ask("GET", "/config", timeout_s=PROBE_S)
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise Failure(f"opencode serve does not answer: {error}") from error
                time.sleep(0.02)
            else:
                return

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = REQUEST_S) -> Any:
        """Its answer, decoded. Raises OSError, HTTPException, and Failure for an answer that is no success."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self.headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= http.client.MULTIPLE_CHOICES:
            said = content[:400].decode(errors="replace")
            raise Failure(f"{method} {path} was answered with {answer.status}: {said}")
        return json.loads(content) if content else None

    def events(self) -> Iterator[Any]:
        """Every event; the first says that it is listening. Ends with the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/event", headers=self.headers)
        for line in connection.getresponse():
            if line.startswith(b"data:"):
                yield json.loads(line[5:])

    def leave(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()


def _ended(code: int, last: bytes) -> bytes:
    raise Failure(f"opencode serve ended with {code}: {last[-400:].decode(errors='replace').strip()}")


class Conversation:
    """What is said to one session of the server, and what comes back of it and of its sub-agents.

    waiting  messages that no reply has taken up yet: their ids with the server, and their UUIDs
    idle     nothing is being done, and nothing is waiting to be
    held     the event that says so, kept back
    """

    def __init__(self, server: Server, id: str, agent: str, model: str) -> None:
        provider, _, name = model.partition("/")
        self.server = server
        self.id = id
        self.idle = True
        self.held: dict[str, Any] | None = None
        self.waiting: dict[str, str | None] = {}
        self._terms = {"agent": agent, "model": {"providerID": provider, "modelID": name}}
        self._sessions = {id}
        self._seen: set[str] = set()
        self._tools: dict[str, tuple[Any, Any]] = {}
        self._failed = False
        self._last = 0

    def say(self, message: dict[str, Any]) -> None:
        """Once for each UUID."""
        uuid = message.get("uuid")
        if uuid is not None and uuid in self._seen:
            return
        if uuid is not None:
            self._seen.add(uuid)
        id = self._message_id()
        self.waiting[id] = uuid
        self.idle = self._failed = False
        _lifecycle(uuid, "queued")
        body = {**self._terms, "messageID": id, "parts": [{"type": "text", "text": message["text"]}]}
        self.server.ask("POST", f"/session/{self.id}/prompt_async", body)

    def interrupt(self) -> None:
        if not self.idle:
            self.waiting.clear()
            self.server.ask("POST", f"/session/{self.id}/abort", {})

    def hear(self, event: dict[str, Any]) -> None:
        """Tell what is to be told of it."""
        kind, about = event.get("type"), event.get("properties") or {}
        info, part = about.get("info") or {}, about.get("part") or {}
        if kind in ("session.created", "session.updated") and info.get("parentID") in self._sessions:
            self._sessions.add(str(info.get("id")))
        session = about.get("sessionID") or info.get("sessionID") or part.get("sessionID")
        if kind not in _TOLD or session not in self._sessions or not self._is_news(part):
            return
        if kind == "message.updated" and info.get("role") == "assistant":
            self._taken_up(str(info.get("parentID")))
        if kind == "session.error" and session == self.id:
            self._failed = True
        if kind == "session.idle" and session == self.id:
            self.held, self._failed = event if self._failed or self.waiting else None, False
            if self.held is not None:
                return
            self.idle = True
        if kind == "session.status" and session == self.id and about.get("status") == {"type": "busy"}:
            self.held = None
        _tell(event)

    def rest(self) -> None:
        """Nothing more comes: tell what was kept back, and that what waits was not taken up."""
        if self.held is None:
            return
        for uuid in self.waiting.values():
            _lifecycle(uuid, "cancelled")
        self.waiting.clear()
        self.idle = True
        _tell(self.held)
        self.held = None

    def _taken_up(self, id: str) -> None:
        """The model is answering this message, and with it every one that came before it."""
        for each in list(self.waiting) if id in self.waiting else ():
            _lifecycle(self.waiting.pop(each), "started")
            if each == id:
                break

    def _is_news(self, part: dict[str, Any]) -> bool:
        """A running tool is told again with every line that it prints, and all of them each time."""
        if part.get("type") != "tool":
            return True
        state, id = part.get("state") or {}, str(part.get("id"))
        standing = (state.get("status"), (state.get("metadata") or {}).get("sessionId"))
        news = self._tools.get(id) != standing
        self._tools[id] = standing
        if state.get("status") in ("completed", "error"):
            del self._tools[id]
        return news

    def _message_id(self) -> str:
        """As OpenCode makes them. They have to ascend: by their order it works out what is not answered yet."""
        self._last = max(self._last + 1, int(time.time() * 1000) * 0x1000)
        return f"msg_{self._last & 0xFFFFFFFFFFFF:012x}" + "".join(secrets.choice(_LETTERS) for _ in range(14))


def _tell(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _lifecycle(uuid: str | None, state: str) -> None:
    if uuid is not None:
        _tell({"type": "command_lifecycle", "command_uuid": uuid, "state": state})


def _begun(server: Server, resume: str | None) -> str:
    """The id of the conversation. Raises Failure for one that there is not."""
    if resume is None:
        return str(server.ask("POST", "/session", {"title": "turn", "permission": _NEVER_ASK})["id"])
    return str(server.ask("GET", f"/session/{resume}")["id"])


def _pour(source: Iterable[Any], kind: str, happened: queue.Queue[tuple[str, Any]]) -> None:
    """Everything of it into the queue, and its end."""
    try:
        for each in source:
            happened.put((kind, each))
    except (OSError, ValueError, http.client.HTTPException) as error:
        happened.put(("failed", error))
    happened.put((kind, None))


def run(chosen: argparse.Namespace, server: Server) -> None:
    """Until its input has ended and nothing is left to do. Raises Failure."""
    server.await_ready()
    happened: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=_QUEUED)
    conversation = Conversation(server, _begun(server, chosen.resume), chosen.agent, chosen.model)
    _tell({"type": "session", "sessionID": conversation.id})
    threading.Thread(target=_pour, args=(server.events(), "event", happened), daemon=True).start()
    listening = input_ended = False
    while not (input_ended and conversation.idle):
        try:
            kind, what = happened.get(timeout=None if conversation.held is None else AFTERMATH_S)
        except queue.Empty:
            conversation.rest()
            continue
        if kind == "failed" or (kind == "event" and what is None):
            raise Failure(f"the events of opencode serve ended: {what or 'without a word'}")
        if kind == "event":
            if not listening:  # not before: what comes of the first message has to be heard as well
                listening = True
                threading.Thread(target=_pour, args=(sys.stdin.buffer, "line", happened), daemon=True).start()
            conversation.hear(what)
        elif what is None:
            input_ended = True
        elif (message := json.loads(what)).get("type") == "interrupt":
            conversation.interrupt()
        else:
            conversation.say(message)


class _Ended(Exception):
    """By SIGTERM."""


def _end(*_: object) -> NoReturn:
    raise _Ended


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--dir", "--agent", "--model"):
        parser.add_argument(name, required=True)
    parser.add_argument("--resume")
    chosen = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _end)
    try:
        server = Server(chosen.dir)
    except FileNotFoundError:
        sys.stderr.write("opencode: there is no program opencode\n")
        return 127  # as a shell says it
    try:
        run(chosen, server)
    except _Ended:
        return 128 + signal.SIGTERM
    except (Failure, OSError, ValueError, http.client.HTTPException) as failure:
        sys.stderr.write(f"opencode: {failure}\n")
        return 1
    finally:
        server.leave()
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a thread may wait for input still, and an interpreter that ends under it complains
