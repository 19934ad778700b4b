"""Programs for the inside of a sandbox: `python3 -Ic`, as its user. Each prints what became of what it tried."""

from __future__ import annotations

# The time at which each line is printed, as the clock of this machine has it; fifty a second.
LINES = "import time\nwhile True:\n    print(time.time(), flush=True)\n    time.sleep(0.02)"

# Says so when no more processes are to be had, and goes on; every one of them is busy, and none heeds SIGTERM.
BOMB = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
leader, met = os.getpid(), False
while True:
    try:
        os.fork()
    except OSError:
        if os.getpid() == leader and not met:
            met = print("no more processes", flush=True) is None
"""

# Fills each place to the last byte. No file may be over a limit of its own, so there are several.
FILL = """
import errno, itertools, sys
for place in sys.argv[1:]:
    for number in itertools.count():
        try:
            with open(f"{place}/fill-{number}", "wb", buffering=0) as file:
                while file.write(bytes(1 << 20)):
                    pass
        except OSError as error:
            if error.errno == errno.ENOSPC:
                break
    print(place, "is full", flush=True)
"""

# Which of these reads something of PID 1 or of one of its threads, and whatever else could hold what it knows.
PRY = """
import ctypes, json, os
fds = sorted(os.listdir("/proc/self/fd"))
libc = ctypes.CDLL(None, use_errno=True)
peek, getfd, kcmp = {"x86_64": ((310, 311), 438, 312), "aarch64": ((270, 271), 438, 272)}[os.uname().machine]

def read(path):
    with open(path, "rb", buffering=0) as file:
        file.read(1)

def write(path):
    with open(path, "wb", buffering=0) as file:
        file.write(b"0")

def call(what, *words):
    if what(*words) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def all_of_it():
    for place in ("/proc/1", *(f"/proc/1/task/{thread}" for thread in os.listdir("/proc/1/task"))):
        for name in "mem maps smaps environ auxv pagemap io stack syscall personality".split():
            yield f"{place}/{name}", lambda path=f"{place}/{name}": read(path)
        for name in "fd fdinfo map_files ns".split():
            if os.path.exists(f"{place}/{name}"):
                yield f"{place}/{name}", lambda path=f"{place}/{name}": os.listdir(path)
        for name in ["cwd", "root", "exe", *(f"fd/{number}" for number in range(32))]:
            yield f"{place}/{name}", lambda path=f"{place}/{name}": os.readlink(path)
        for name in "mem oom_score_adj clear_refs coredump_filter comm".split():
            yield f"writing {place}/{name}", lambda path=f"{place}/{name}": write(path)
        pid = int(place.rpartition("/")[2])
        for name, request in (("ATTACH", 16), ("SEIZE", 0x4206)):
            yield f"ptrace {name} {pid}", lambda pid=pid, request=request: call(libc.ptrace, request, pid, 0, 0)
        buffer = ctypes.create_string_buffer(8)
        mine = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
        theirs = (ctypes.c_size_t * 2)(0x400000, 8)
        for number in peek:
            yield f"process_vm {number} {pid}", lambda pid=pid, n=number: call(libc.syscall, n, pid, mine, 1, theirs, 1, 0)
        yield f"kcmp {pid}", lambda pid=pid: call(libc.syscall, kcmp, pid, os.getpid(), 0, 0, 0)
    pidfd = os.pidfd_open(1)
    for number in range(32):
        yield f"pidfd_getfd {number}", lambda number=number: call(libc.syscall, getfd, pidfd, number, 0)

tried, done = 0, []
for name, what in all_of_it():
    tried += 1
    try:
        what()
    except OSError:
        pass
    else:
        done.append(name)
seen = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                seen.append(file.read().decode(errors="replace"))
        except OSError:
            pass
files = [os.path.join(at, name) for place in ("/workspace", "/tmp", "/dev/shm", "/cache", "/run", "/var")
         for at, _, names in os.walk(place) for name in names]
large = [path for path in files if os.path.isfile(path) and os.path.getsize(path) >= 1 << 20]
print(json.dumps({"tried": tried, "done": done, "seen": seen, "large": large, "fds": fds}))
"""

# Everything by which a process could end, stop or starve PID 1; which of what only the same user may do was allowed.
STRIKE = """
import ctypes, fcntl, json, os, resource, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
queue, tqueue, tgkill, tkill, send = {
    "x86_64": (129, 297, 234, 200, 424), "aarch64": (138, 240, 131, 130, 424)
}[os.uname().machine]
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

def call(*words):
    if libc.syscall(*words) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def info(number):
    # As if it came from outside: no pid, no user.
    return ctypes.create_string_buffer(struct.pack("iiiiiI", number, 0, -1, 0, 0, 0), 128)

def by_descriptor(number):
    # The kernel sends it itself, when there is something to be read.
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, 1)
    fcntl.fcntl(reader, 10, number)  # F_SETSIG
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")

def all_of_it():
    proc = os.open("/proc/1", os.O_RDONLY)
    threads = list(map(int, os.listdir("/proc/1/task")))
    for number in ENDING:
        yield "rt_sigqueueinfo", lambda: call(queue, 1, number, info(number))
        yield "pidfd with a sender", lambda: call(send, proc, number, info(number), 0)
        for thread in threads:
            yield "tkill", lambda: call(tkill, thread, number)
            yield "tgkill", lambda: call(tgkill, 1, thread, number)
            yield "rt_tgsigqueueinfo", lambda: call(tqueue, 1, thread, number, info(number))
    for thread in threads:
        yield "priority", lambda: os.setpriority(os.PRIO_PROCESS, thread, 19)
        yield "scheduler", lambda: os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        yield "affinity", lambda: os.sched_setaffinity(thread, {min(os.sched_getaffinity(0))})
    yield "the user's priority", lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19)
    yield "the group's priority", lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(1), 19)
    yield "limits", lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))

def strike():
    proc = os.open("/proc/1", os.O_RDONLY)
    for number in set(range(1, 65)) - {32, 33}:
        os.kill(1, number)
        by_descriptor(number)
        signal.pidfd_send_signal(proc, number)
    done = []
    for name, what in all_of_it():
        try:
            what()
        except PermissionError:
            pass
        else:
            done.append(name)
    return done

done = strike()
# And again with as many signals queued as the user may have: of some more the kernel forgets who sent them.
mine = signal.SIGRTMIN + 5
signal.pthread_sigmask(signal.SIG_BLOCK, {mine})
text, queued = info(mine), 0
while libc.syscall(queue, os.getpid(), mine, text) == 0:
    queued += 1
done += strike()
print(json.dumps({"done": sorted(set(done)), "queued": queued}), flush=True)
# Whoever is not PID 1, the sender aside.
os.kill(-1, signal.SIGKILL)
"""

# Three processes that do nothing but ask PID 1 to end.
STORM = """
import os
os.fork(), os.fork()
print("begun", flush=True)
while True:
    for number in (15, 2, 1):
        os.kill(1, number)
"""
