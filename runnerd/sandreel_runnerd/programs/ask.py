"""What the programs of a session ask for leases with: `sandreel-credential`, git's credential helper, and `gh`'s wrapper.

    sandreel-credential get SLUG [RESOURCE]             prints the value
    sandreel-credential run SLUG [RESOURCE] -- COMMAND  runs the command with it, in a variable or a file as its recipe says
    git-credential-sandreel get                         as git asks its helpers
    gh …                                                gh, with a token for github.com (or GH_HOST) for this one call

Runs by itself in any image, with a bare Python: the standard library alone, and of it little, for git waits for this.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ANSWER_BYTES = 128 * 1024
# runnerd gives the broker 10 s, and is the one to say what went wrong.
ANSWER_WITHIN_S = 15.0
NOT_GIVEN, USAGE, NOT_STARTED, NO_PROGRAM = 1, 64, 126, 127
SOCKET = "SANDREEL_LEASES"
PROGRAMS = "SANDREEL_PROGRAMS"
# In memory in every sandbox (shm_overview(7)); a fresh directory in it, which only we may enter.
MEMORY = "/dev/shm"  # noqa: S108
SAY = "usage: sandreel-credential get SLUG [RESOURCE]\n       sandreel-credential run SLUG [RESOURCE] -- COMMAND …\n"


class NotGiven(Exception):
    """No lease; the text says why."""


def main(words: list[str]) -> int:
    """The exit code."""
    try:
        match words:
            case ["get", slug]:
                return get(slug)
            case ["get", slug, resource]:
                return get(slug, resource)
            case ["run", slug, "--", _, *_]:
                return start(words[3:], lease({"get": slug}))
            case ["run", slug, resource, "--", _, *_]:
                return start(words[4:], lease({"get": slug, "resource": resource}))
            case ["git", action]:
                return git() if action == "get" else 0
            case ["gh", *rest]:
                return gh(rest)
    except NotGiven as why:
        sys.stderr.write(f"sandreel-credential: {why}\n")
        return NOT_GIVEN
    sys.stderr.write(SAY)
    return USAGE


def get(slug: str, resource: str | None = None) -> int:
    value: bytes = lease({"get": slug, "resource": resource})["value"]
    sys.stdout.buffer.write(value if value.endswith(b"\n") else value + b"\n")
    sys.stdout.buffer.flush()
    return 0


def git() -> int:
    """Silent where there is nothing: git then asks the next helper, or a person."""
    asked: dict[str, str] = {}
    for line in sys.stdin:
        name, equals, value = line.rstrip("\n").partition("=")
        if not name:
            break
        if equals:
            asked[name] = value
    question = {name: asked.get(name, "") for name in ("protocol", "host", "path")}
    if question["protocol"] not in ("http", "https") or not question["host"]:
        return 0
    given = ask({"git": question})
    if given is None or b"\n" in given["value"] or b"\0" in given["value"]:
        return 0
    sys.stdout.buffer.write(b"username=%s\npassword=%s\n" % (given["username"].encode(), given["value"]))
    sys.stdout.buffer.flush()
    return 0


def gh(words: list[str]) -> int:
    own = os.environ.get(PROGRAMS, "").split(os.pathsep)
    rest = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place not in own]
    program = next((f"{place}/gh" for place in rest if os.access(f"{place}/gh", os.X_OK)), None)
    if program is None:
        sys.stderr.write("gh: it is not installed in this session\n")
        return NO_PROGRAM
    given = None
    if not os.environ.get("GH_TOKEN"):
        try:
            given = ask({"git": {"protocol": "https", "host": os.environ.get("GH_HOST", "github.com"), "path": ""}})
        except NotGiven as why:
            sys.stderr.write(f"sandreel: gh goes on without a token: {why}\n")
    return start([program, *words], given)


def start(command: list[str], given: dict[str, Any] | None) -> int:
    """Become the command, or stay to take its file away when it has ended."""
    import signal

    if given is not None and given["file_variable"]:
        return with_file(command, given)
    if given is not None:
        if not given["variables"]:
            raise NotGiven("its recipe names no variable: use `sandreel-credential get`")
        if b"\0" in given["value"]:
            raise NotGiven("no variable can hold its value")
        for name in given["variables"]:
            os.environb[name.encode()] = given["value"]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a command would inherit that
    try:
        os.execvp(command[0], command)  # noqa: S606 - that is what it is for
    except OSError as error:
        return not_started(command, error)


def with_file(command: list[str], given: dict[str, Any]) -> int:
    """However it ends, the file goes first: also when a signal comes before the command runs."""
    import signal
    import tempfile
    from contextlib import suppress

    children: list[int] = []

    def end(number: int, _: object) -> None:
        if not children:
            sys.exit(128 + number)
        with suppress(ProcessLookupError):
            os.kill(children[0], number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="sandreel-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as place:
        path = os.path.join(place, os.path.basename(given["file_name"]) or "credential")  # noqa: PTH118, PTH119
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(given["value"])
        os.environ[given["file_variable"]] = path
        try:
            children.append(os.posix_spawnp(command[0], command, os.environ, setsigdef=[signal.SIGPIPE]))
        except OSError as error:
            return not_started(command, error)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal has sent it to both
        _, status = os.waitpid(children[0], 0)
        code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def not_started(command: list[str], error: OSError) -> int:
    sys.stderr.write(f"sandreel-credential: {command[0]}: {error.strerror}\n")
    return NO_PROGRAM if isinstance(error, FileNotFoundError) else NOT_STARTED


def lease(question: dict[str, Any]) -> dict[str, Any]:
    given = ask(question)
    if given is None:
        raise NotGiven("nothing is granted")
    return given


def ask(question: dict[str, Any]) -> dict[str, Any] | None:
    """What runnerd answers, with the value's bytes as `value`; None where nothing is granted for that place. Raises NotGiven."""
    import json
    import socket
    from binascii import a2b_base64

    path = os.environ.get(SOCKET, "")
    if not path:
        raise NotGiven("this is no process of a sandreel session, or of one that gives leases")
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_WITHIN_S)
            connection.connect(path)
            connection.sendall(json.dumps(question).encode() + b"\n")
            while len(answer) <= MAX_ANSWER_BYTES and (piece := connection.recv(65536)):
                answer += piece
        said: dict[str, Any] = json.loads(answer)
    except (OSError, ValueError):
        raise NotGiven("the session's runnerd does not answer") from None
    if said.get("error"):
        raise NotGiven(f"{said.get('message')} ({said['error']})")
    if said.get("none"):
        return None
    return said | {"value": a2b_base64(said["base64"])}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
