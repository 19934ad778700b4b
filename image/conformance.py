"""Whether an image is fit for sessions: `python image/conformance.py IMAGE [--agents | --full]`, also for an image of your own.

Everything is tried as a session has it: as its user, under a read-only root, with no capability and no network, a tmpfs at /tmp.
One line a check; the exit code is 1 when one failed. What needs a bus (runnerd ready, PID 1) is in tests/image.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

# The users of the profiles (design §6).
USERS = ("65534:65534", "10001:10001")
_CHECK_TIMEOUT_S = 240  # OpenCode takes 15 s at one CPU, and 75 s were seen beside nineteen other processes
# As the agent profile has it (behaviour §2.4).
_HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none", "--pids-limit", "512"),
    *("--memory", "4g", "--memory-swap", "4g", "--shm-size", "512m", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777,size=512m"),
)  # fmt: skip


class Check(NamedTuple):
    """`shell` runs under `bash -lc`, as an exec's shell does; the check holds when it exits with 0 and `expects` is in what it printed."""

    name: str
    shell: str
    expects: str = ""


# A model that refuses every request at once: an agent starts, asks it, and ends with its error.
_MODEL = "http://127.0.0.1:8080"
_SERVE_MODEL = """
cat > $TMPDIR/model.py <<'END'
import http.server
class Refuses(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "no such model", "type": "invalid_request_error", "code": 400}}')
    do_GET = do_POST
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Refuses).serve_forever()
END
answers() { (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; }
answers || python3 $TMPDIR/model.py < /dev/null > /dev/null 2>&1 &
until answers; do sleep 0.1; done
"""

SLIM = (
    Check("runnerd", "/opt/sandreel/bin/python -I -c 'import sandreel_runnerd.__main__; print(\"imported\")'", "imported"),
    Check("runnerd is out of reach", "! touch /opt/sandreel/x 2>/dev/null && ! touch /workspace/../x 2>/dev/null"),
    Check("python3", "python3 --version", "Python 3."),
    Check("HOME", 'test "$HOME" = /workspace/.home && touch "$HOME/file" && mkdir "$HOME/.config"'),
    Check("TMPDIR", 'printf "#!/bin/sh\\necho ran\\n" > $TMPDIR/x && chmod +x $TMPDIR/x && $TMPDIR/x', "ran"),
    Check("no root", "! su -c true 2>/dev/null && test \"$(id -u)\" != 0 && ! grep -q 'CapEff:.*[1-9a-f]' /proc/self/status"),
    Check("name of the user", "id -un && test -n \"$(getent passwd $(id -u))\""),
    Check("bill of materials", "python3 -c 'import json; print(json.load(open(\"/usr/share/sandreel/sbom.cdx.json\"))[\"bomFormat\"])'", "CycloneDX"),
)  # fmt: skip

# What the image with the agents has, and the full one as well.
AGENTS = (
    Check("git", "cd $TMPDIR && git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first && git log --oneline", "first"),
    Check("claude in bypass mode", _SERVE_MODEL + f"echo hello | ANTHROPIC_BASE_URL={_MODEL} ANTHROPIC_AUTH_TOKEN=x CLAUDE_CODE_MAX_RETRIES=0 claude -p --output-format stream-json --verbose --dangerously-skip-permissions || true", '"permissionMode":"bypassPermissions"'),
    Check("opencode in bypass mode", _SERVE_MODEL + f"OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 OPENCODE_DISABLE_LSP_DOWNLOAD=1 OPENCODE_DISABLE_SHARE=1 OPENCODE_DISABLE_DEFAULT_PLUGINS=1 OPENCODE_CONFIG_CONTENT='{{\"model\":\"p/m\",\"small_model\":\"p/m\",\"autoupdate\":false,\"share\":\"disabled\",\"permission\":{{\"*\":\"allow\"}},\"provider\":{{\"p\":{{\"npm\":\"@ai-sdk/openai-compatible\",\"name\":\"P\",\"options\":{{\"baseURL\":\"{_MODEL}/v1\",\"apiKey\":\"k\"}},\"models\":{{\"m\":{{\"name\":\"M\"}}}}}}}}}}' opencode run --format json --title t hello < /dev/null || true", '"error"'),
    Check("codex in bypass mode", _SERVE_MODEL + f"codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox -c model=m -c model_provider=p -c model_providers.p.name=p -c 'model_providers.p.base_url=\"{_MODEL}/v1\"' -c 'model_providers.p.wire_api=\"responses\"' -c model_providers.p.request_max_retries=0 -c model_providers.p.stream_max_retries=0 -c analytics.enabled=false -c check_for_update_on_startup=false --disable plugins hello < /dev/null || true", '"turn.failed"'),
    Check("gemini in bypass mode", _SERVE_MODEL + f"mkdir -p ~/.gemini && echo '{{\"security\":{{\"auth\":{{\"selectedType\":\"gemini-api-key\"}}}},\"privacy\":{{\"usageStatisticsEnabled\":false}}}}' > ~/.gemini/settings.json && GEMINI_API_KEY=x GOOGLE_GEMINI_BASE_URL={_MODEL} GEMINI_CLI_NO_RELAUNCH=true gemini -o stream-json --approval-mode yolo --skip-trust -m gemini-2.5-flash -p hello < /dev/null || true", '"init"'),
    Check("claude's managed settings", "python3 -c 'import json, os; hooks = json.load(open(\"/etc/claude-code/managed-settings.json\"))[\"hooks\"]; assert {\"PreToolUse\", \"PostToolUse\", \"Stop\"} == set(hooks); assert all(os.access(each[\"command\"].split()[0], os.X_OK) for kind in hooks.values() for of in kind for each in of[\"hooks\"])'"),
    Check("hooks", "echo '{}' | SANDREEL_EXEC_ID=e /usr/local/lib/sandreel/steer post && echo '{}' | /usr/local/lib/sandreel/plan-gate", '"deny"'),
)  # fmt: skip

FULL = (
    Check("python", "python --version && python -m pip --version", "pip "),
    Check("a package of the session's own", 'cd && mkdir -p own && printf "[project]\\nname=\\"own\\"\\nversion=\\"1\\"\\n" > own/pyproject.toml && python -m site --user-site', "/workspace/.home/.local/"),
    Check("node", "node --version"),
    Check("npm", "npm --version && npm config get prefix", "/workspace/.home/.local"),
    Check("npx", "npx --version"),
    Check("bun", "bun -e 'console.log(6 * 7)'", "42"),
    Check("uv", "uv venv -q --offline $TMPDIR/venv && $TMPDIR/venv/bin/python -c 'print(6 * 7)'", "42"),
    Check("gh", "gh --version", "gh version"),
    Check("ripgrep", "echo needle > $TMPDIR/hay && rg needle $TMPDIR/hay", "needle"),
    Check("fd", "touch $TMPDIR/found.me && fd found.me $TMPDIR", "found.me"),
    Check("jq", "echo '{\"a\": 42}' | jq .a", "42"),
    Check("curl", "curl --version", "https"),
    Check("procps", "ps -e && pgrep -f . | head -1", "PID"),
    Check("chromium", "chromium --headless --no-sandbox --disable-gpu --dump-dom 'data:text/html,<p>it%20starts' 2>/dev/null", "it starts"),
    Check("agents in the bill of materials", "jq -r '.components[].purl' /usr/share/sandreel/sbom.cdx.json", "pkg:npm/%40anthropic-ai/claude-code@"),
)  # fmt: skip

# Which of the Dockerfile's `ARG …_VERSION` each program answers with.
PINNED_AGENTS = {
    "OPENCODE_VERSION": "opencode --version",
    "CLAUDE_CODE_VERSION": "claude --version",
    "GEMINI_CLI_VERSION": "gemini --version",
    "CODEX_VERSION": "codex --version",
}
PINNED = {
    **PINNED_AGENTS,
    "UV_VERSION": "uv --version",
    "BUN_VERSION": "bun --version",
    "NODE_WHEEL_VERSION": "node --version",
    "PLAYWRIGHT_MCP_VERSION": "playwright-mcp --version",
}

# One call of the MCP server: a page, and what is on it.
_PAGE = "data:text/html,<title>Seen</title><h1>a%20page</h1>"


Fit = Literal["slim", "agents", "full"]


def checks(fit: Fit, *, dockerfile: Path | None = None) -> list[Check]:
    """`dockerfile` None: its versions are not looked at (an image of somebody's own)."""
    more: dict[Fit, tuple[Check, ...]] = {"slim": (), "agents": AGENTS, "full": (*AGENTS, *FULL)}
    found = [*SLIM, *more[fit]]
    if fit != "slim" and dockerfile is not None:
        pinned: Mapping[str, str] = dict(re.findall(r"^ARG (\w+_VERSION)=(\S+)$", dockerfile.read_text(), re.MULTILINE))
        programs = PINNED if fit == "full" else PINNED_AGENTS
        found += [Check(f"{line.split()[0]} is the pinned one", line, pinned[name]) for name, line in programs.items()]
    return found


class Container:
    """One that waits, hardened as a session's is."""

    def __init__(self, id: str) -> None:
        self.id = id

    def run(self, check: Check) -> str | None:
        """None when it holds, else why not, in a line."""
        try:
            done = self._exec(["bash", "-lc", check.shell])
        except subprocess.TimeoutExpired:
            return f"no end within {_CHECK_TIMEOUT_S} s"
        said = done.stdout + done.stderr
        if done.returncode:
            return f"exit code {done.returncode}: {_tail(said)}"
        return None if check.expects in said else f"no {check.expects!r} in what it printed: {_tail(said)}"

    def browse(self) -> str | None:
        """The MCP server's own browser draws a page. None when it does, else why not."""
        requests = [
            ("initialize", {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
            ("tools/call", {"name": "browser_navigate", "arguments": {"url": _PAGE}}),
            ("tools/call", {"name": "browser_snapshot", "arguments": {}}),
        ]  # fmt: skip
        child = subprocess.Popen(
            ["docker", "exec", "-i", self.id, "sandreel-playwright-mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        answer = ""
        # Whatever it does not answer ends with it: `docker exec` closes its streams.
        with child, suppress(BrokenPipeError):
            assert child.stdin is not None
            assert child.stdout is not None
            for id, (method, parameters) in enumerate(requests):
                asked = {"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}
                child.stdin.write(json.dumps(asked) + "\n")
                child.stdin.flush()
                answer = next((line for line in child.stdout if json.loads(line).get("id") == id), "")
            child.stdin.close()
            child.terminate()
        return None if "a page" in answer else f"no page in its answer: {_tail(answer)}"

    def _exec(self, line: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", "-i", self.id, *line],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_CHECK_TIMEOUT_S,
        )


@contextmanager
def container(image: str, user: str, *, name: str) -> Generator[Container, None, None]:
    """One on a workspace of its own, made as a backend makes it: the user's, with a home directory.
    Raises RuntimeError when it cannot be started."""
    mount = f"type=volume,source={name},destination=/workspace,volume-nocopy"
    prepare = f"mkdir -p /workspace/.home && chown -R {user} /workspace && chmod 0700 /workspace"
    try:
        _docker(
            "run", "--rm", "--name", name, "--user", "0:0", "--mount", mount, "--entrypoint", "sh", image, "-c", prepare
        )
        line = ["run", "--detach", "--name", name, "--user", user, *_HARDENED, "--mount", mount]
        yield Container(_docker(*line, "--entrypoint", "sleep", image, "3600"))
    finally:
        for words in (("rm", "--force", name), ("volume", "rm", "--force", name)):
            subprocess.run(["docker", *words], capture_output=True, check=False)


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {words[0]}: {_tail(done.stderr)}")
    return done.stdout.strip()


def conform(
    image: str, fit: Fit, *, dockerfile: Path | None, mark: str, users: Sequence[str] = USERS
) -> Iterator[tuple[str, str | None]]:
    """Every check as every user: its name, and why it failed."""
    for user in users:
        with container(image, user, name=f"sandreel-conformance-{mark}-{user.partition(':')[0]}") as box:
            for check in checks(fit, dockerfile=dockerfile):
                yield f"{user} {check.name}", box.run(check)
            if fit == "full":
                yield f"{user} playwright draws a page", box.browse()


def _tail(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])[-400:] or "nothing"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="image/conformance.py", description=__doc__)
    parser.add_argument("image")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--agents", dest="fit", action="store_const", const="agents", help="with git and the four agents")
    more.add_argument(
        "--full",
        dest="fit",
        action="store_const",
        const="full",
        help="with all tools of the full image, and the agents",
    )
    parser.set_defaults(fit="slim")
    chosen = parser.parse_args(words)
    failed = 0
    try:
        for name, why in conform(chosen.image, chosen.fit, dockerfile=None, mark="hand"):
            print(f"{'ok  ' if why is None else 'FAIL'}  {name}{'' if why is None else f': {why}'}", flush=True)
            failed += why is not None
    except RuntimeError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 70
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
