"""Keeps an exec from reaching its recorder by calls that ask for the same user alone, also of a process that is closed
otherwise (`init.guard`):

limits      prlimit(2): RLIMIT_NOFILE 0 takes runnerd's next connection, RLIMIT_CPU its life
signals     by all but kill(2). Of a signal whose sender says himself who he is, the kernel forgets that when the user has
            queued more than it keeps: what is left looks as if it came from outside (`init`). kill(2) is always told
scheduling  an idle, low or narrow class cannot be left again, and a busy exec then starves runnerd

So nothing that runnerd starts may do these to runnerd's threads; limits of no other process at all. To itself it may do
everything, and so it may to others but for limits, and but for the one call that names nobody by a number
(pidfd_send_signal(2) with a sender of its own making, which no program is known to use).

Only where privileges cannot grow any more (no_new_privs, which every container backend and bubblewrap set): elsewhere
a filter would need it, and with it sudo would cease to work, by which an exec gets past any fence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sandreel_runnerd.seccomp import ALLOW, ARGUMENTS, FORBID, Machine, Program, install, is_possible

# Their numbers, by the AUDIT_ARCH of whoever calls: a 64-bit kernel also takes 32-bit calls, and x86-64 those of x32.
_X32 = 0x40000000
_CALLS: dict[int, dict[str, tuple[int, ...]]] = {
    0xC000003E: {  # x86-64
        "prlimit64": (302, 302 | _X32),
        "rt_sigqueueinfo": (129, 524 | _X32),
        "rt_tgsigqueueinfo": (297, 536 | _X32),
        "tgkill": (234, 234 | _X32),
        "tkill": (200, 200 | _X32),
        "pidfd_send_signal": (424, 424 | _X32),
        "setpriority": (141, 141 | _X32),
        "sched_setparam": (142, 142 | _X32),
        "sched_setscheduler": (144, 144 | _X32),
        "sched_setaffinity": (203, 203 | _X32),
        "sched_setattr": (314, 314 | _X32),
        "ioprio_set": (251, 251 | _X32),
    },
    0x40000003: {  # i386
        "prlimit64": (340,),
        "rt_sigqueueinfo": (178,),
        "rt_tgsigqueueinfo": (335,),
        "tgkill": (270,),
        "tkill": (238,),
        "pidfd_send_signal": (424,),
        "setpriority": (97,),
        "sched_setparam": (154,),
        "sched_setscheduler": (156,),
        "sched_setaffinity": (241,),
        "sched_setattr": (351,),
        "ioprio_set": (289,),
    },
    0xC00000B7: {  # aarch64
        "prlimit64": (261,),
        "rt_sigqueueinfo": (138,),
        "rt_tgsigqueueinfo": (240,),
        "tgkill": (131,),
        "tkill": (130,),
        "pidfd_send_signal": (424,),
        "setpriority": (140,),
        "sched_setparam": (118,),
        "sched_setscheduler": (119,),
        "sched_setaffinity": (122,),
        "sched_setattr": (274,),
        "ioprio_set": (30,),
    },
    0x40000028: {  # arm
        "prlimit64": (369,),
        "rt_sigqueueinfo": (178,),
        "rt_tgsigqueueinfo": (363,),
        "tgkill": (268,),
        "tkill": (238,),
        "pidfd_send_signal": (424,),
        "setpriority": (97,),
        "sched_setparam": (154,),
        "sched_setscheduler": (156,),
        "sched_setaffinity": (241,),
        "sched_setattr": (380,),
        "ioprio_set": (314,),
    },
}
# What is asked of each: a label of `_checks`.
_CHECKS = {
    "prlimit64": "limits",
    **dict.fromkeys(("rt_sigqueueinfo", "rt_tgsigqueueinfo", "tgkill"), "process"),
    **dict.fromkeys(("tkill", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"), "thread"),
    "pidfd_send_signal": "sender",
    "setpriority": "priority",
    "ioprio_set": "ioprio",
}
# PRIO_PROCESS, PRIO_PGRP, PRIO_USER (sys/resource.h); IOPRIO_WHO_… are one more each (linux/ioprio.h).
_PROCESS, _GROUP, _USER = 0, 1, 2


def close() -> bool:
    """For this thread and whatever it starts, for ever; whether it could be done. To be called by the thread that starts
    execs, before the first, and after the last thread of this process was started: each is named in it."""
    if not is_possible():
        return False
    threads = sorted(int(name) for name in os.listdir("/proc/self/task"))  # noqa: PTH208 - names are all that is wanted
    return install(_program(os.getpid(), os.getpgrp(), threads))


def _program(process: int, group: int, threads: Sequence[int]) -> Program:
    machines = [
        Machine(arch, {number: _CHECKS[name] for name, numbers in calls.items() for number in numbers})
        for arch, calls in _CALLS.items()
    ]
    program = Program(machines)
    pointer = ARGUMENTS[2], ARGUMENTS[2] + 4  # low and high half: all of these machines are little-endian
    program.label("limits").load(ARGUMENTS[0]).equal(0, then=ALLOW)
    program.label("sender")
    for half in pointer:
        program.load(half).equal(0, otherwise=FORBID)
    program.give(ALLOW)
    program.label("process").load(ARGUMENTS[0]).equal(process, then=FORBID, otherwise=ALLOW)
    for label, first in (("priority", _PROCESS), ("ioprio", _PROCESS + 1)):
        shift = first - _PROCESS
        program.label(label).load(ARGUMENTS[0]).equal(_USER + shift, then=FORBID)
        program.equal(_PROCESS + shift, then="second").equal(_GROUP + shift, otherwise=ALLOW)
        program.load(ARGUMENTS[1]).equal(group, then=FORBID, otherwise=ALLOW)
    for label, argument in (("thread", 0), ("second", 1)):
        program.label(label).load(ARGUMENTS[argument])
        for thread in threads:
            program.equal(thread, then=FORBID)
        program.give(ALLOW)
    return program
