"""Filters of system calls (seccomp(2)): a program of classic BPF, written with labels, and how the kernel takes it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PR_GET_NO_NEW_PRIVS = 39  # linux/prctl.h
# Where a filter can be set, with the number of seccomp(2).
MACHINES = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1  # linux/seccomp.h
# Without it kernels before 5.16 slow down everything that is filtered (SECCOMP_FILTER_FLAG_SPEC_ALLOW).
_SPEC_ALLOW = 1 << 2
# Classic BPF (linux/bpf_common.h): load a word, jump if equal, jump, return.
_LOAD, _EQUAL, _JUMP, _RETURN = 0x20, 0x15, 0x05, 0x06
# Where struct seccomp_data has the call's number, its machine and the low halves of its arguments.
_NUMBER, _ARCH = 0, 4
ARGUMENTS = tuple(16 + 8 * index for index in range(6))
# Labels that every program has, with what the kernel is told: SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with EPERM.
ALLOW, FORBID = "allow", "forbid"
_VERDICTS = {ALLOW: 0x7FFF0000, FORBID: 0x00050000 | 1}
_NEXT = ""


class Machine(NamedTuple):
    """The calls of one AUDIT_ARCH that are looked at: their numbers, and the label of what is asked of each."""

    arch: int
    calls: Mapping[int, str]


class Program:
    """Every call of `machines` goes to its label; any other is allowed. What is behind the labels is added one by one:
    a step goes on to the next where it says nothing else."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        # (code, operand, then, otherwise)
        self._steps: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}
        self.load(_ARCH)
        for machine in machines:
            past = f"not {machine.arch}"
            self.equal(machine.arch, otherwise=past).load(_NUMBER)
            for number, label in machine.calls.items():
                # A conditional jump goes over 255 steps at most, a plain one over any number.
                self.equal(number, then=f"{machine.arch} {number}", otherwise=f"not {machine.arch} {number}")
                self.label(f"{machine.arch} {number}")._add(_JUMP, 0, label)
                self.label(f"not {machine.arch} {number}")
            self.give(ALLOW).label(past)
        self.give(ALLOW)

    def label(self, name: str) -> Program:
        """What is added now has this name."""
        self._labels[name] = len(self._steps)
        return self

    def load(self, offset: int) -> Program:
        """The word of the call that is compared from here on."""
        return self._add(_LOAD, offset)

    def equal(self, value: int, *, then: str = _NEXT, otherwise: str = _NEXT) -> Program:
        return self._add(_EQUAL, value, then, otherwise)

    def give(self, verdict: str) -> Program:
        return self._add(_RETURN, _VERDICTS[verdict])

    def _add(self, code: int, operand: int, then: str = _NEXT, otherwise: str = _NEXT) -> Program:
        self._steps.append((code, operand, then, otherwise))
        return self

    def assemble(self) -> bytes:
        """Instructions of 8 bytes: code, how many to skip if true and if false, operand. Raises struct.error when a
        conditional jump is too long."""
        labels = self._labels | {name: len(self._steps) + index for index, name in enumerate(_VERDICTS)}
        found = b""
        for at, (code, operand, then, otherwise) in enumerate(self._steps):
            skips = [0 if not label else labels[label] - at - 1 for label in (then, otherwise)]
            found += struct.pack("HBBI", code, *((0, 0, skips[0]) if code == _JUMP else (*skips, operand)))
        return found + b"".join(struct.pack("HBBI", _RETURN, 0, 0, verdict) for verdict in _VERDICTS.values())


def is_possible() -> bool:
    """Whether this process may be filtered without a privilege, and this machine's calls are known."""
    known = os.uname().machine in MACHINES
    return known and ctypes.CDLL(None).prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1


def install(program: Program) -> bool:
    """For this thread and what it starts; whether the kernel took it."""
    filters = program.assemble()
    code = ctypes.create_string_buffer(filters, len(filters))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filters) // 8, ctypes.addressof(code)))
    call = MACHINES[os.uname().machine]
    return bool(ctypes.CDLL(None).syscall(call, _SET_MODE_FILTER, _SPEC_ALLOW, head) == 0)
