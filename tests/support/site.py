"""A web site on this machine that behaves in every way a download may meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.support.loopback import Quiet, serving

BODY = b"0123456789" * 30_000


class Site(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, rest = self.path[1:].partition("/")
        if path == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif path == "body":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)
        elif path == "short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY) + 1))
            self.end_headers()
            self.wfile.write(BODY)
        elif path == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(BODY)
            except OSError:
                return
        elif path == "stuck":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"12345")
            self.connection.recv(1)
        else:
            self.send_error(404)


@contextmanager
def web_site() -> Iterator[str]:
    with serving(Site) as port:
        yield f"http://127.0.0.1:{port}"
