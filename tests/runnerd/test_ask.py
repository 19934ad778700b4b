"""What `sandreel-credential run` leaves behind when it is ended early: nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from sandreel_runnerd.programs import ROOT

# A spawn that never comes back stands for the moment in which the file is there and the command is not.
_EARLY = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import ask
ask.MEMORY = sys.argv[2]
def spawn(*_, **__):
    print(os.listdir(ask.MEMORY), flush=True)
    signal.pause()
os.posix_spawnp = spawn
ask.with_file(["true"], {"value": b"secret", "file_name": ".npmrc", "file_variable": "X"})
"""


def test_a_signal_before_the_command_runs_leaves_no_file(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _EARLY, str(ROOT), str(tmp_path)], stdout=subprocess.PIPE) as early:
        assert early.stdout is not None
        assert b"sandreel-" in early.stdout.readline()
        early.send_signal(signal.SIGTERM)
        assert early.wait(20) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
