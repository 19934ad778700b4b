"""Keeps an exec from changing the limits of its recorder.

prlimit(2) asks for the same user alone, also of a process that is closed otherwise (`init.guard`): RLIMIT_NOFILE 0
takes runnerd's next connection, RLIMIT_CPU its life. So nothing that runnerd starts may set the limits of another
process. Its own it may, by pid 0, as every C library and shell does; reading is free.

Only where privileges cannot grow any more (no_new_privs, which every container backend and bubblewrap set): elsewhere
a filter would need it, and with it sudo would cease to work, by which an exec gets past any fence.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_GET_NO_NEW_PRIVS = 39  # linux/prctl.h
# Where this works, with the number of seccomp(2).
MACHINES = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1  # linux/seccomp.h
# Without it kernels before 5.16 slow down everything that is filtered (SECCOMP_FILTER_FLAG_SPEC_ALLOW).
_SPEC_ALLOW = 1 << 2
# prlimit64 by the AUDIT_ARCH of whoever calls: a 64-bit kernel also takes 32-bit calls, and x86-64 those of x32.
_PRLIMIT_CALLS = (
    (0xC000003E, 302),
    (0xC000003E, 302 | 0x40000000),
    (0x40000003, 340),
    (0xC00000B7, 261),
    (0x40000028, 369),
)
# Classic BPF (linux/bpf_common.h): load a word, jump if equal, jump, return.
_LOAD, _EQUAL, _JUMP, _RETURN = 0x20, 0x15, 0x05, 0x06
# Where struct seccomp_data has them, on a little-endian machine.
_NUMBER, _ARCH, _PID, _LIMIT_LOW, _LIMIT_HIGH = 0, 4, 16, 32, 36
_ALLOW, _FORBID = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO | EPERM


def close() -> bool:
    """For this thread and whatever it starts, threads and programs, for ever; whether it could be done. To be called
    before there is another thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = MACHINES.get(os.uname().machine)
    if call is None or libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return False
    program = _program()
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    return bool(libc.syscall(call, _SET_MODE_FILTER, _SPEC_ALLOW, head) == 0)


def _program() -> bytes:
    """Instructions of 8 bytes: code, how many to skip if true and if false, operand."""
    found: list[tuple[int, int, int, int]] = []
    for index, (arch, number) in enumerate(_PRLIMIT_CALLS):
        to_check = (len(_PRLIMIT_CALLS) - index - 1) * 5 + 1
        found += [
            (_LOAD, 0, 0, _ARCH),
            (_EQUAL, 0, 3, arch),
            (_LOAD, 0, 0, _NUMBER),
            (_EQUAL, 0, 1, number),
            (_JUMP, 0, 0, to_check),
        ]
    found += [
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _PID),
        (_EQUAL, 5, 0, 0),
        (_LOAD, 0, 0, _LIMIT_LOW),
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, _LIMIT_HIGH),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _FORBID),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in found)
