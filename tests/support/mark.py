"""The installation that a test process plays: what carries its mark is searched for and killed, and another process's
tests, which run beside, must not be."""

from __future__ import annotations

import os

OURS = f"tests-{os.getpid()}"
