"""The demo's job: some of the project's own tests, verbosely, then a burst of numbered lines; and what carries it
into a session."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import sandreel_core

BURST_LINES = 200_000
# In waves, so that there is time to kill things while they come.
_WAVES = 20
_PAUSE_S = 0.25
# Where the job keeps a copy of what it prints, to compare with what a viewer saw.
COPY = "produced.log"
# What `package` is written to, in the session.
PACKAGE = "project.tgz"
# Pure ones: they need no server and write nothing but what they clean up.
_TESTS = (
    "core/test_environment.py",
    "core/test_session.py",
    "core/test_exec.py",
    "core/test_settings.py",
    "runnerd/test_env.py",
    "support/samples.py",
)
# Those that need no more than a session's image has: runnerd with what that needs, and pytest, which is brought.
_CONTAINED_TESTS = (
    "core/test_settings.py",
    "core/test_health.py",
    "runnerd/test_env.py",
    "runnerd/test_files.py",
    "runnerd/test_settings.py",
)
_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
# Of the image (image/Dockerfile): the interpreter that has runnerd.
_CONTAINED_PYTHON = "/opt/sandreel/bin/python"

_BURST = f"""
import sys, time
for wave in range({_WAVES}):
    first = wave * {BURST_LINES // _WAVES} + 1
    lines = (f"burst {{n:06d}} {{'=' * (n % 60)}} of {BURST_LINES}" for n in range(first, first + {BURST_LINES // _WAVES}))
    print("\\n".join(lines), flush=True)
    time.sleep({_PAUSE_S})
"""
_SHELL = """
set -o pipefail
mkdir -p project && tar -xzf {package} -C project
{{
  {tests}
  code=$?
  echo "burst begins"
  "$PYTHON" -c "$BURST"
  exit $code
}} 2>&1 | tee {copy}
"""
_RUN = '(cd project && PYTHONPATH=site "$PYTHON" -m pytest -v --color=no -p no:cacheprovider -c /dev/null --rootdir=. --import-mode=importlib tests)'
_NO_TESTS = 'echo "no checkout with pytest installed: no tests, only the burst"'


class Job:
    """contained: in an image, which has no pytest: it is brought along."""

    def __init__(self, python: str, *, contained: bool) -> None:
        """python: of the machine, for a session that is no container."""
        self._python = _CONTAINED_PYTHON if contained else python
        self._contained = contained
        root = Path(sandreel_core.__file__).parents[2] / "tests"
        paths = [root / name for name in (_CONTAINED_TESTS if contained else _TESTS)]
        self._tests = [path for path in paths if path.is_file()] if _has_pytest() else []

    @property
    def title(self) -> str:
        tests = "some of the project's own tests, then " if self._tests else ""
        return f"A chatty job: {tests}{BURST_LINES:,} lines"

    @property
    def shell(self) -> str:
        """For `bash -lc` in the workspace, with `environment` and what `package` gives as PACKAGE."""
        return _SHELL.format(tests=_RUN if self._tests else _NO_TESTS, copy=COPY, package=PACKAGE)

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHON": self._python, "BURST": _BURST, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"  # they are pure: no plugin is needed, and none is configured
        }

    def package(self) -> bytes:
        """The tests, and pytest where there is none, as a compressed archive. Blocks for about 0.2 s."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
            for path in self._tests:
                archive.add(path, arcname=str(Path("tests") / path.parent.name / path.name))
            if self._contained and self._tests:
                for path, name in _pytest():
                    archive.add(path, arcname=f"site/{name}")
        return buffer.getvalue()


def _has_pytest() -> bool:
    try:
        return all(distribution(name) for name in _PYTEST)
    except PackageNotFoundError:
        return False


def _pytest() -> Iterator[tuple[Path, str]]:
    """(file, its name as it is imported) of pytest and what it needs, which is Python alone."""
    for name in _PYTEST:
        for file in distribution(name).files or []:
            if (file.suffix == ".py" or file.name == "METADATA") and ".." not in file.parts:
                yield Path(str(file.locate())), str(file)
