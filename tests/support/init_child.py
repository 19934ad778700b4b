"""A process with runnerd's PID 1 duties and nothing else, for tests: `python -m tests.support.init_child SCENARIO`.

Prints one line for what it found; on an ending signal that counts it prints `ended` and leaves with 3.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

from sandreel_core.log import Log
from sandreel_runnerd import fence, init
from sandreel_runnerd.children import Children

ATTACK = "kill -TERM 1; kill -INT 1; kill -HUP 1; kill -USR2 1; kill -KILL 1; kill -STOP 1; kill -KILL -1; exit 6"
# Signals that claim to come from outside: rt_sigqueueinfo(2) keeps what the sender wrote, as long as its code is below 0.
FORGE = """
import ctypes, os, signal, struct, sys
call = {"x86_64": 129, "aarch64": 138}[os.uname().machine]
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    info = ctypes.create_string_buffer(struct.pack("iiiiiI", number, 0, -1, 0, 0, 0), 128)
    if ctypes.CDLL(None).syscall(call, 1, int(number), info) != 0:
        sys.exit("not sent")
sys.exit(7)
"""
# 5,000 orphans that end while nobody of their family is there to reap them.
ORPHANS = """
import os
for _ in range(50):
    if os.fork() == 0:
        for _ in range(100):
            if os.fork() == 0:
                os._exit(0)
        os._exit(0)
os._exit(9)
"""


# What an exec may do to limits: read anybody's, set its own, and set nobody else's.
LIMITS = """
import os, resource, sys
kind = resource.RLIMIT_NOFILE
soft, hard = resource.prlimit(int(sys.argv[1]), kind)
resource.setrlimit(kind, (64, hard))
resource.prlimit(os.getpid(), kind)
try:
    resource.prlimit(int(sys.argv[1]), kind, (0, 0))
except PermissionError:
    sys.exit(8)
"""


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def start(argv: list[str]) -> int:
    return os.posix_spawnp(argv[0], argv, os.environ, setsid=True, setsigmask=())


async def run(children: Children, argv: list[str]) -> str:
    child = children.start(lambda: start(argv))
    await child.wait()
    ending = await child.collect()
    return f"{ending.exit_code}/{ending.signal}"


def zombies() -> int:
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        found += text.rpartition(")")[2].split()[0] == "Z"
    return found


async def no_zombies() -> bool:
    for _ in range(500):
        if not zombies():
            return True
        await asyncio.sleep(0.02)
    return False


async def main(scenario: str) -> int:
    children = Children()
    ended = asyncio.Event()
    init.guard()
    if scenario == "limits":
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, as backends do
        say("fenced", fence.close())
    with init.Init(reap=children.reap, end=ended.set, log=Log("init")):
        if scenario == "attack":
            say("attacked", os.getpid(), await run(children, ["sh", "-c", ATTACK]))
            say("forged", await run(children, [sys.executable, "-c", FORGE]))
            say("alive", await run(children, ["sh", "-c", "exit 5"]), "leaving" if ended.is_set() else "serving")
        elif scenario == "limits":
            say("tried", await run(children, [sys.executable, "-c", LIMITS, str(os.getpid())]))
        elif scenario == "orphans":
            endings = await asyncio.gather(
                run(children, [sys.executable, "-c", ORPHANS]),
                *(run(children, ["sh", "-c", f"sleep 0.{index}; exit {index}"]) for index in range(1, 8)),
            )
            say("endings", *endings, "reaped", await no_zombies())
        else:
            say("waiting", os.getpid())
        await ended.wait()
        say("ended")
    return 3


if __name__ == "__main__":
    init.block()
    sys.exit(asyncio.run(main(sys.argv[1])))
