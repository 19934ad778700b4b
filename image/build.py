"""Builds the images of this tree: `python image/build.py [KIND…]`. Says what each weighs, layer by layer, and holds it to its budget.

An image whose tag (a hash of what it is built from) the engine has is not built again. Each gets that tag and the moving tag `dev`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from sandreel_core import images
from sandreel_core.images import Kind

ORDINARY_BASE = "python:3.12-slim-bookworm"  # what the Dockerfiles name themselves
OWN_BASE = "sandreel-base:trixie"
# Megabytes of 10^6 bytes, all layers unpacked, the base's included.
BUDGET_MB: dict[Kind, int] = {
    "session-slim": 200,
    "session-agents": 1500,
    "session": 2800,
    "runnerd": 60,
    "nats": 200,
    "fence": 250,
    "postgres": 250,
    "roles": 300,
}
BASE_LABEL = "sandreel.base"
_PULL_TIMEOUT_S = 600
_SAID_LINES = 25
USAGE, UNAVAILABLE, FAILED = 64, 69, 70  # sysexits.h


class Stop(Exception):
    """One line for whoever called, and the exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def main(words: Sequence[str]) -> int:
    kinds: tuple[Kind, ...] = tuple(images.RECIPES)
    parser = argparse.ArgumentParser(prog="image/build.py", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(kinds)} (default: all)")
    parser.add_argument(
        "--base",
        default=os.environ.get("BASE_IMAGE") or None,
        help=f"the image that all stand on (BASE_IMAGE; default {ORDINARY_BASE}, where it cannot be pulled one made from Debian's packages)",
    )
    parser.add_argument("--again", action="store_true", help="build even what is there")
    parser.add_argument("--names", action="store_true", help="print the names with their tags, and build nothing")
    parser.add_argument("--layers", action="store_true", help="print what each layer weighs, of what is there too")
    chosen = parser.parse_args(words)
    unknown = [kind for kind in chosen.kinds if kind not in get_args(Kind) or kind not in images.RECIPES]
    if unknown:
        print(f"there is no image {unknown[0]!r}: {', '.join(kinds)}", file=sys.stderr)
        return USAGE
    wanted: Sequence[Kind] = chosen.kinds or kinds
    if chosen.names:
        print(*(images.image(kind) for kind in wanted), sep="\n")
        return 0
    tree = images.source_tree()
    try:
        if tree is None:
            raise Stop("images are built from a source tree, and this sandreel is an installed one", USAGE)
        engine()
        for kind in wanted:
            make(kind, tree, base=chosen.base, again=chosen.again, layers=chosen.layers)
    except Stop as stop:
        print(f"image: {stop}", file=sys.stderr)
        return stop.code
    return 0


def make(kind: Kind, tree: Path, *, base: str | None, again: bool, layers: bool) -> None:
    """Have the image, print its size, hold it to its budget. Raises Stop."""
    name = images.image(kind)
    there = label(name, BASE_LABEL)
    built = again or there is None or (base is not None and base != there)
    seconds = build(kind, name, tree, base or default_base(tree)) if built else 0.0
    run("docker", "tag", name, f"{images.repository(kind)}:dev")
    weight = int(run("docker", "image", "inspect", "--format", "{{.Size}}", name))
    print(
        f"{name}: {weight / 1e6:.0f} MB of {BUDGET_MB[kind]}, {f'built in {seconds:.0f} s' if built else 'was there'}"
    )
    if built or layers:
        print_layers(name)
    if weight > BUDGET_MB[kind] * 1_000_000:
        raise Stop(f"{name} is over its budget of {BUDGET_MB[kind]} MB; the layers above say where it went", FAILED)


def build(kind: Kind, name: str, tree: Path, base: str) -> float:
    """Seconds that it took. What the engine said is kept in build/, and its end is printed when it failed."""
    recipe = images.RECIPES[kind]
    log = tree / "build" / f"image-{kind}.log"
    log.parent.mkdir(exist_ok=True)
    print(f"building {name} on {base} (its words go to {log.relative_to(tree)})", flush=True)
    line = ["docker", "build", "--tag", name, "--build-arg", f"BASE_IMAGE={base}", "--label", f"{BASE_LABEL}={base}"]
    line += ["--file", recipe.dockerfile, *(["--target", recipe.target] if recipe.target else []), "-"]
    since = time.monotonic()
    with log.open("wb") as words:
        child = subprocess.run(
            line, input=context(images.inputs(kind, tree), tree), stdout=words, stderr=subprocess.STDOUT, check=False
        )
    if child.returncode:
        print(*log.read_text(errors="replace").splitlines()[-_SAID_LINES:], sep="\n", file=sys.stderr)
        raise Stop(f"{name} could not be built", FAILED)
    return time.monotonic() - since


def context(paths: Iterable[Path], tree: Path) -> bytes:
    """A tar of exactly these files. Times and owners are left out, so that the engine's cache sees only what counts."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for path in paths:
            entry = tarfile.TarInfo(str(path.relative_to(tree)))
            content = path.read_bytes()
            entry.size = len(content)
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def default_base(tree: Path) -> str:
    """The ordinary base, where it is there or can be pulled; else one of this machine's own, made now if need be."""
    for base in (ORDINARY_BASE, OWN_BASE):
        if exists(base):
            return base
    print(f"pulling {ORDINARY_BASE}", flush=True)
    try:
        pulled = subprocess.run(
            ["docker", "pull", "--quiet", ORDINARY_BASE],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PULL_TIMEOUT_S,
        )
        why = (pulled.stderr.strip().splitlines() or ["the engine did not say why"])[-1]
    except subprocess.TimeoutExpired:
        why = f"that took more than {_PULL_TIMEOUT_S} s"
    else:
        if pulled.returncode == 0:
            return ORDINARY_BASE
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise Stop(
            f"{ORDINARY_BASE} cannot be pulled ({why}): give BASE_IMAGE, or as root with mmdebstrap installed run image/base-image.sh",
            UNAVAILABLE,
        )
    print(f"it cannot be pulled ({why})", flush=True)
    if subprocess.run([tree / "image" / "base-image.sh", OWN_BASE], check=False).returncode:
        raise Stop("no base image could be made", FAILED)
    return OWN_BASE


def print_layers(name: str) -> None:
    """From the bottom up; layers of no bytes are left out."""
    shape = '{"size": {{json .Size}}, "by": {{json .CreatedBy}}}'
    rows = [json.loads(row) for row in run("docker", "history", "--no-trunc", "--format", shape, name).splitlines()]
    for row in reversed(rows):
        if not row["size"].startswith("0B"):
            by = " ".join(row["by"].removeprefix("/bin/sh -c ").replace("#(nop)", "").split()) or "the base"
            print(f"  {row['size']:>8}  {by[:100]}")


def engine() -> None:
    """Raises Stop when there is none that answers."""
    if shutil.which("docker") is None:
        raise Stop("no docker command is installed", UNAVAILABLE)
    asked = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["it did not say why"])[-1]
        raise Stop(f"the container engine does not answer: {said}", UNAVAILABLE)


def exists(name: str) -> bool:
    return label(name, BASE_LABEL) is not None


def label(name: str, key: str) -> str | None:
    """The image's label, empty when it has no such one; None when there is no such image."""
    shape = f'{{{{index .Config.Labels "{key}"}}}}'
    found = subprocess.run(
        ["docker", "image", "inspect", "--format", shape, name], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else None


def run(*line: str) -> str:
    """What it printed. Raises Stop with its complaint."""
    child = subprocess.run(line, capture_output=True, text=True, check=False)
    if child.returncode:
        raise Stop(f"{' '.join(line[:3])}: {child.stderr.strip() or child.returncode}", FAILED)
    return child.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
