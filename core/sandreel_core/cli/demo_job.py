"""The demo's job: some of the project's own tests, verbosely, then a burst of numbered lines; and what carries it
into a session."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from pathlib import Path

import sandreel_core

BURST_LINES = 200_000
# In waves, so that there is time to kill things while they come.
_WAVES = 20
_PAUSE_S = 0.25
# Where the job keeps a copy of what it prints, to compare with what a viewer saw.
COPY = "produced.log"
# Pure ones: they need no server and write nothing.
_TESTS = (
    "core/test_environment.py",
    "core/test_session.py",
    "core/test_exec.py",
    "core/test_settings.py",
    "runnerd/test_env.py",
    "support/samples.py",
)
_MAX_BYTES = 60 * 1024  # goes with the command as its input, at most 64 KiB

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
mkdir -p project && tar -xzf - -C project
{{
  {tests}
  code=$?
  echo "burst begins"
  "$PYTHON" -c "$BURST"
  exit $code
}} 2>&1 | tee {copy}
"""
_PYTEST = '(cd project && "$PYTHON" -m pytest -v --color=no -p no:cacheprovider -c /dev/null --rootdir=. tests)'
_NO_PYTEST = 'echo "pytest is not installed here: no tests, only the burst"'


def shell(*, contained: bool) -> str:
    """For `bash -lc`, with `environment()` and `package()` as its input. `contained`: in an image, which has no pytest."""
    found = not contained and importlib.util.find_spec("pytest") is not None and _files()
    return _SHELL.format(tests=_PYTEST if found else _NO_PYTEST, copy=COPY)


def environment(python: str) -> dict[str, str]:
    return {"PYTHON": python, "BURST": _BURST, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"  # they are pure: no plugin is needed, and none is configured
    }


def package() -> bytes:
    """The tests as a compressed archive (an empty one where this is not a checkout)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in _files():
            archive.add(path, arcname=str(Path("tests") / path.parent.name / path.name))
    body = buffer.getvalue()
    if len(body) > _MAX_BYTES:
        raise ValueError(f"the demo's tests have grown to {len(body)} bytes; choose fewer")
    return body


def _files() -> list[Path]:
    tests = Path(sandreel_core.__file__).parents[2] / "tests"
    return [path for name in _TESTS if (path := tests / name).is_file()]
