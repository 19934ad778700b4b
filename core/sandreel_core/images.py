"""Which container images belong to this sandreel: their names, and a tag that says what is in them.

In a source tree the tag is a hash of everything that an image is built from, so a changed runnerd asks for a new
image and an unchanged one is found again. An installed sandreel has no sources beside it: there the tag is its version.
`image/build.py` builds what is named here; the backends ask here what to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandreel_core import __version__

Kind = Literal["session", "session-slim", "session-agents", "runnerd", "nats", "fence", "postgres", "roles"]

# What runnerd may import of core (the import rules forbid it the rest): a change of the command line is no new session image.
_NOT_OF_RUNNERD = ("backup", "cli", "client", "embedded", "spawner")
_TAG_HEX_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one image is built.

    inputs   files and directories of the tree that its build may read, beside its Dockerfile; nothing else is sent
    without  directories among them that are left out
    target   the stage of the Dockerfile; None: its last
    """

    dockerfile: str
    inputs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    target: str | None = None


_SESSION = (
    "constraints.txt",
    "pyproject.toml",
    "LICENSE",
    "core",
    "runnerd",
    "image/session",
    "image/portable.py",
    "image/sbom.py",
)
_FENCED = tuple(f"core/sandreel_core/{name}" for name in _NOT_OF_RUNNERD)

RECIPES: dict[Kind, Recipe] = {
    "session-slim": Recipe("image/Dockerfile", _SESSION, _FENCED, target="slim"),
    "runnerd": Recipe("image/Dockerfile", _SESSION, _FENCED, target="alone"),
    "session-agents": Recipe("image/Dockerfile", (*_SESSION, "image/agents"), _FENCED, target="agents"),
    "session": Recipe("image/Dockerfile", (*_SESSION, "image/agents", "image/full"), _FENCED, target="full"),
    "nats": Recipe("image/nats/Dockerfile", ("constraints.txt", "image/nats")),
    "fence": Recipe("image/fence/Dockerfile"),
    "postgres": Recipe("image/postgres/Dockerfile", ("constraints.txt", "image/postgres")),
    "roles": Recipe(
        "image/roles/Dockerfile",
        (
            *("constraints.txt", "pyproject.toml", "LICENSE", "README.md", "image/roles"),
            *("core", "runnerd", "projections", "bridge", "migrations"),
        ),
    ),
}


def image(kind: Kind) -> str:
    """Name and tag of the image of this sandreel, e.g. `sandreel-session-slim:3f0c…`; whether it is there, an engine says.

    Reads some hundred files of a source tree: 10 ms. Call it in a thread.
    """
    tree = source_tree()
    return f"{repository(kind)}:{__version__ if tree is None else tag(kind, tree)}"


def repository(kind: Kind) -> str:
    """The image's name without a tag."""
    return f"sandreel-{kind}"


def source_tree() -> Path | None:
    """The checkout that this package runs from, None when it was installed."""
    root = Path(__file__).parents[2]
    return root if (root / "image" / "Dockerfile").is_file() else None


def tag(kind: Kind, tree: Path) -> str:
    """Twelve hex digits over the names, modes and bytes of all inputs."""
    seen = hashlib.sha256(repr(RECIPES[kind]).encode())
    for path in inputs(kind, tree):
        body = path.read_bytes()
        executable = bool(path.stat().st_mode & 0o100)
        seen.update(f"\0{path.relative_to(tree)}\0{executable}\0{len(body)}\0".encode() + body)
    return seen.hexdigest()[:_TAG_HEX_DIGITS]


def inputs(kind: Kind, tree: Path) -> list[Path]:
    """Every file that the build gets to see, in a fixed order. Raises FileNotFoundError for an input that is not there."""
    recipe = RECIPES[kind]
    fenced = {tree / name for name in recipe.without}
    found = {
        path
        for name in (recipe.dockerfile, *recipe.inputs)
        for path in _files(tree / name)
        if not fenced.intersection(path.parents)
    }
    return sorted(found)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif not path.is_dir():
        raise FileNotFoundError(f"{path}, which an image is built from, is not there")
    else:
        # `__pycache__` and editors' leavings are no source; `py.typed` and the like have no dot in front.
        yield from (
            each
            for each in path.rglob("*")
            if each.is_file() and "__pycache__" not in each.parts and not each.name.startswith(".")
        )
