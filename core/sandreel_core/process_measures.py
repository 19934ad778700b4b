"""What is measured of a role's own process. The names without `sandreel_` are those that every Prometheus client uses."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from sandreel_core.health import STATUSES, Health
from sandreel_core.metrics import Family, Metrics

INFO = Family("sandreel_role_info", "gauge", "1, with the role's name and version.", ("role", "version"))
STATUS = Family("sandreel_role_status", "gauge", "What /healthz says: 0 ok, 1 degraded, 2 failing.")
STARTED = Family("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.")
CPU = Family("process_cpu_seconds_total", "counter", "User and system CPU time of the process.")
MEMORY = Family("process_resident_memory_bytes", "gauge", "Memory of the process that is resident.")
OPEN_FILES = Family("process_open_fds", "gauge", "Open file descriptors.")
MAX_FILES = Family("process_max_fds", "gauge", "How many file descriptors may be open.")
PROCESS = (INFO, STATUS, STARTED, CPU, MEMORY, OPEN_FILES, MAX_FILES)


class ProcessMeasures:
    """Looks at the role's health and at `/proc/self` whenever somebody asks for the metrics, and never otherwise."""

    def __init__(self, metrics: Metrics, health: Health, *, role: str, version: str) -> None:
        self._health = health
        self._status = metrics.gauge(STATUS)
        metrics.gauge(INFO).set(1, role, version)
        metrics.gauge(STARTED).set(round(time.time(), 3))
        self._cpu = metrics.counter(CPU)
        self._memory = metrics.gauge(MEMORY)
        self._open = metrics.gauge(OPEN_FILES)
        self._max = metrics.gauge(MAX_FILES)
        metrics.before(self._look)

    def _look(self) -> None:
        self._status.set(STATUSES.index(self._health.report().status))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu.add(by=max(0.0, usage.ru_utime + usage.ru_stime - self._cpu.total()))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self._memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
        self._open.set(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        self._max.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
