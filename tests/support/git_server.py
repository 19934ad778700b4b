"""A git server on loopback, with HTTP authentication: `git http-backend` behind a small web server of ours."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.support.loopback import Quiet, serving

_HEADERS_END = b"\r\n\r\n"


@dataclass
class GitServer:
    """`passwords` are those that it takes, by anybody; `users` everybody who came with one of them."""

    root: Path
    passwords: set[str]
    port: int = 0
    users: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}.git"

    def make(self, name: str) -> None:
        """A bare repository with one commit, whose file `README` holds its name."""
        bare, work = self.root / f"{name}.git", self.root / f"{name}.work"
        bare.parent.mkdir(parents=True, exist_ok=True)
        _git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        _git("-C", str(bare), "config", "http.receivepack", "true")
        _git("clone", "--quiet", str(bare), str(work))
        (work / "README").write_text(name)
        _git("-C", str(work), "add", "README")
        _git("-C", str(work), "commit", "--quiet", "--message", "first")
        _git("-C", str(work), "push", "--quiet", "origin", "HEAD:main")

    def subjects(self, name: str) -> list[str]:
        """The subjects of the commits of `main`, the newest first."""
        return _git("-C", str(self.root / f"{name}.git"), "log", "--format=%s", "main").splitlines()


def _git(*words: str) -> str:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{f"GIT_{who}_{what}": "test@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    return subprocess.run(["git", *words], env=environ, check=True, capture_output=True, text=True).stdout


@contextmanager
def git_server(root: Path, *passwords: str) -> Iterator[GitServer]:
    served = GitServer(root, set(passwords))

    class Handler(Quiet, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            user = self._user()
            if user is None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            environ = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REMOTE_USER": user,
                "REMOTE_ADDR": "127.0.0.1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(["git", "http-backend"], input=self._body(), env=environ, capture_output=True)
            head, _, body = done.stdout.partition(_HEADERS_END)
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _user(self) -> str | None:
            kind, _, said = self.headers.get("Authorization", "").partition(" ")
            user, _, password = base64.b64decode(said).decode().partition(":") if kind == "Basic" else ("", "", "")
            if password in served.passwords:
                served.users.append(user)
                return user
            served.refused += 1
            return None

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    with serving(Handler) as served.port:
        yield served
