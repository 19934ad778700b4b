"""Which image belongs to this tree: the tag changes with what an image is built from, and with nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandreel_core import __version__, images

TREE = Path(__file__).parents[2]
BUILD = (sys.executable, str(TREE / "image" / "build.py"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the slim image is built from."""
    for path in images.inputs("session-slim", TREE):
        copy = tmp_path / path.relative_to(TREE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def test_a_tag_is_the_same_wherever_the_tree_lies(tree: Path) -> None:
    assert images.tag("session-slim", tree) == images.tag("session-slim", TREE)


@pytest.mark.parametrize("name", ["runnerd/sandreel_runnerd/daemon.py", "constraints.txt", "image/Dockerfile"])
def test_a_changed_input_is_another_image(tree: Path, name: str) -> None:
    before = images.tag("session-slim", tree)
    (tree / name).write_text((tree / name).read_text() + "\n")
    assert images.tag("session-slim", tree) != before


def test_a_program_that_may_no_longer_be_run_is_another_image(tree: Path) -> None:
    path = tree / "image" / "sbom.py"
    before = images.tag("session-slim", tree)
    path.chmod(0o755)
    assert images.tag("session-slim", tree) != before


def test_what_runnerd_may_not_import_is_no_part_of_a_session_image(tree: Path) -> None:
    before = images.tag("session-slim", tree)
    for folder in ("cli", "client", "embedded", "spawner"):
        path = tree / "core" / "sandreel_core" / folder / "new.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (tree / "core" / "sandreel_core" / "__pycache__").mkdir()
    (tree / "core" / "sandreel_core" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert images.tag("session-slim", tree) == before


def test_without_its_sources_an_image_has_the_version_as_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "source_tree", lambda: None)
    assert images.image("nats") == f"sandreel-nats:{__version__}"


def test_an_input_that_is_missing_is_named(tree: Path) -> None:
    (tree / "LICENSE").unlink()
    with pytest.raises(FileNotFoundError, match="LICENSE"):
        images.tag("session-slim", tree)


def test_every_image_of_this_tree_has_a_name() -> None:
    named = subprocess.run([*BUILD, "--names"], capture_output=True, text=True, check=True).stdout.split()
    assert named == [images.image(kind) for kind in images.RECIPES]


@pytest.mark.parametrize(
    ("words", "environment", "code", "said"),
    [
        (["nothing"], {}, 64, "there is no image 'nothing'"),
        (["nats"], {"DOCKER_HOST": "unix:///nowhere.sock"}, 69, "the container engine does not answer"),
        (["nats"], {"PATH": "/nowhere"}, 69, "no docker command is installed"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    words: list[str], environment: dict[str, str], code: int, said: str
) -> None:
    if "DOCKER_HOST" in environment and shutil.which("docker") is None:
        pytest.skip("no docker command is installed")
    done = subprocess.run(
        [*BUILD, *words], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin:/usr/local/bin"} | environment
    )
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
