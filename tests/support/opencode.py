"""A stand-in of `opencode serve`, as far as its driver uses it: sessions, prompts, an abort, and events. Standard library alone; found
on PATH as `opencode`. What a prompt says is done:

say TEXT     a text
tool         a tool that prints all the time, until it is aborted
race         the session is idle just as the next message comes, which it never takes up
fail         the model's API refused
die          the server ends
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SOURCE = __file__
SESSION = "ses_1"
HEARERS: list[queue.Queue[dict[str, Any]]] = []
ABORTED = threading.Event()
PROMPTS: queue.Queue[dict[str, Any]] = queue.Queue()


def tell(kind: str, **about: Any) -> None:
    for hearer in HEARERS:
        hearer.put({"type": kind, "properties": {"sessionID": SESSION, **about}})


def reply(prompt: dict[str, Any], number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"msg_{number}", "sessionID": SESSION, "role": "assistant", "parentID": prompt["messageID"], **more}


def idle() -> None:
    tell("session.status", status={"type": "idle"})
    tell("session.idle")


def work() -> None:
    for number in range(1, 1000):
        prompt = PROMPTS.get()
        verb, _, rest = prompt["parts"][0]["text"].partition(" ")
        tell("message.updated", info={"id": prompt["messageID"], "sessionID": SESSION, "role": "user"})
        tell("session.status", status={"type": "busy"})
        tell("message.updated", info=reply(prompt, number))
        done = {"time": {"completed": 1}, "tokens": {"input": 7, "output": 3}, "finish": "stop"}
        match verb:
            case "say":
                text = {"id": f"prt_{number}", "messageID": f"msg_{number}", "sessionID": SESSION, "type": "text"}
                tell("message.part.updated", part={**text, "text": rest, "time": {"end": 1}})
                tell("message.updated", info=reply(prompt, number, **done))
                idle()
            case "tool":
                part = {
                    "id": f"prt_{number}",
                    "messageID": f"msg_{number}",
                    "sessionID": SESSION,
                    "type": "tool",
                    "tool": "bash",
                }
                part["callID"] = "c1"
                for count in range(10_000):
                    output = {"output": "line\\n" * min(count, 100)}
                    tell(
                        "message.part.updated",
                        part={**part, "state": {"status": "running", "input": {}, "metadata": output}},
                    )
                    if ABORTED.wait(0.01):
                        break
                tell("session.error", error={"name": "MessageAbortedError", "data": {"message": "Aborted"}})
                idle()
                tell("message.part.updated", part={**part, "state": {"status": "error", "error": "aborted"}})
                tell("message.updated", info=reply(prompt, number, **done))
                idle()
            case "race":
                late = PROMPTS.get()
                tell("message.updated", info={"id": late["messageID"], "sessionID": SESSION, "role": "user"})
                tell("message.updated", info=reply(prompt, number, **done))
                idle()
            case "fail":
                tell("session.error", error={"name": "APIError", "data": {"message": "spent", "statusCode": 402}})
                idle()
                time.sleep(0.05)
                idle()
            case "die":
                server.shutdown()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if not self.headers.get("Authorization", "").startswith("Basic "):
            self.answer(401, {})
        elif self.path == "/event":
            self.send_response(200)
            self.end_headers()
            hearer: queue.Queue[dict[str, Any]] = queue.Queue()
            HEARERS.append(hearer)
            hearer.put({"type": "server.connected", "properties": {}})
            while True:
                self.wfile.write(b"data: " + json.dumps(hearer.get()).encode() + b"\n\n")
                self.wfile.flush()
        elif self.path in ("/config", f"/session/{SESSION}"):
            self.answer(200, {"id": SESSION})
        else:
            self.answer(404, {"name": "NotFoundError"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/prompt_async"):
            PROMPTS.put(body)
        elif self.path.endswith("/abort"):
            ABORTED.set()
        self.answer(200, {"id": SESSION})

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=work, daemon=True).start()
    sys.stdout.write(f"opencode server listening on http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
