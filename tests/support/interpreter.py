"""A Python with everything that this one has, which any user of the machine may run."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandreel_core.spawner.bubble import closed_to

NOBODY = 65534


@contextmanager
def for_everybody() -> Iterator[str | None]:
    """Its path: this one's own where others may enter it, else one that the machine has of the same version, in an environment
    that finds what is installed here. None where there is none."""
    if not _closed(sys.executable):
        yield sys.executable
        return
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(name, path="/usr/local/bin:/usr/bin")
    if found is None or _closed(found):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sandreel-python-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        subprocess.run([found, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
        packages = Path(folder, "lib", name, "site-packages")
        lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
        (packages / "all.pth").write_text("".join(lines))
        yield str(Path(folder, "bin", "python"))


def _closed(python: str) -> bool:
    return closed_to(Path(os.path.realpath(python)), NOBODY, NOBODY) is not None
