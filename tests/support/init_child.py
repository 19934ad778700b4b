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
from sandreel_runnerd import fence, init, threads
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


# What an exec may do: read anybody's limits and set its own, whatever it likes to itself and its own children, and nothing of
# that to its recorder.
FENCED = """
import ctypes, os, resource, signal, struct, subprocess, sys
libc, recorder, thread = ctypes.CDLL(None, use_errno=True), *map(int, sys.argv[1:])
x86 = os.uname().machine == "x86_64"
tkill, tgkill, queue, tqueue, ioprio = (200, 234, 129, 297, 251) if x86 else (130, 131, 138, 240, 30)
pidfd_send = 424
info = ctypes.create_string_buffer(struct.pack("iiiiiI", signal.SIGCONT, 0, -1, 0, 0, 0), 128)

def call(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def all_of_it(pid, thread):
    idle = os.sched_param(0)
    yield "tkill", lambda: call(tkill, thread, signal.SIGCONT)
    yield "tgkill", lambda: call(tgkill, pid, thread, signal.SIGCONT)
    yield "rt_sigqueueinfo", lambda: call(queue, pid, signal.SIGCONT, info)
    yield "rt_tgsigqueueinfo", lambda: call(tqueue, pid, thread, signal.SIGCONT, info)
    yield "setpriority", lambda: os.setpriority(os.PRIO_PROCESS, thread, 19)
    yield "a group's priority", lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(pid), 19)
    yield "sched_setparam", lambda: os.sched_setparam(thread, idle)
    yield "sched_setaffinity", lambda: os.sched_setaffinity(thread, os.sched_getaffinity(0))
    yield "ioprio_set", lambda: call(ioprio, 1, thread, 3 << 13)
    yield "sched_setscheduler", lambda: os.sched_setscheduler(thread, os.SCHED_IDLE, idle)

def refused(what):
    try:
        what()
    except PermissionError:
        return True

soft, hard = resource.prlimit(recorder, resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)
allowed = [name for name, what in all_of_it(recorder, thread) if not refused(what)]
allowed += [name for name, what in {
    "prlimit": lambda: resource.prlimit(recorder, resource.RLIMIT_NOFILE, (0, 0)),
    "a user's priority": lambda: os.setpriority(os.PRIO_USER, 54321, 19),
    "a sender of its own": lambda: call(pidfd_send, os.pidfd_open(recorder), signal.SIGCONT, info, 0),
}.items() if not refused(what)]
if allowed:
    sys.exit("allowed: " + ", ".join(allowed))
signal.pidfd_send_signal(os.pidfd_open(recorder), signal.SIGCONT)
os.setpriority(os.PRIO_PROCESS, 0, 1)
with subprocess.Popen(["sleep", "600"], start_new_session=True) as own:
    for _, what in all_of_it(own.pid, own.pid):
        what()
    own.kill()
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
    with init.Init(reap=children.reap, end=ended.set, log=Log("init")):
        if scenario == "fenced":
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, as backends do
            await threads.start()
            say("fenced", fence.close())
        if scenario == "attack":
            say("attacked", os.getpid(), await run(children, ["sh", "-c", ATTACK]))
            say("forged", await run(children, [sys.executable, "-c", FORGE]))
            say("alive", await run(children, ["sh", "-c", "exit 5"]), "leaving" if ended.is_set() else "serving")
        elif scenario == "fenced":
            # Whichever thread of it: the last one here.
            thread = max((path.name for path in Path("/proc/self/task").iterdir()), key=int)
            say("tried", await run(children, [sys.executable, "-c", FENCED, str(os.getpid()), thread]))
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
