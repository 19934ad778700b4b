"""The container engine of this machine, for tests: whether it is there, which session image it has, and an installation of
its own for every test process, of which nothing is left behind."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sandreel_core.images import Kind, image
from sandreel_core.spawner import fence

# What `make image-slim` builds of this tree; another one by SANDREEL_TEST_IMAGE.
IMAGE = os.environ.get("SANDREEL_TEST_IMAGE") or image("session-slim")
# Of the test suite's own: every process that runs beside takes what is free in it.
POOL = "10.202.0.0/16"
_STANDIN = Path(__file__).with_name("standin.py")


def docker(*words: str, stdin: bytes | None = None) -> str:
    """What the engine's own command line prints. Fails with what it complains of."""
    done = subprocess.run(["docker", *words], input=stdin, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="replace").strip()


@functools.cache
def missing(*kinds: Kind) -> str | None:
    """Why nothing can be tested with an engine here, or with these images as well; None: it can."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no container engine: {error}"
    if done.returncode:
        return "no container engine answers"
    for name in (IMAGE, image("nats"), image("fence"), *map(image, kinds)):
        done = subprocess.run(["docker", "image", "inspect", name], capture_output=True, timeout=20, check=False)
        if done.returncode:
            kind = name.removeprefix("sandreel-").partition(":")[0]
            return f"image {name} is not built: image/build.py {kind}"
    return None


@functools.cache
def standin_image() -> str:
    """The session image with the stand-in as its main process."""
    script = _STANDIN.read_bytes()
    base = docker("image", "inspect", "-f", "{{.Id}}", IMAGE)
    tag = f"sandreel-standin:{hashlib.sha256(script + base.encode()).hexdigest()[:12]}"
    have = subprocess.run(["docker", "image", "inspect", tag], capture_output=True, timeout=20, check=False)
    if have.returncode:
        recipe = f"FROM {IMAGE}\nCOPY standin.py /standin.py\n"
        recipe += 'ENTRYPOINT ["/opt/sandreel/bin/python", "-I", "/standin.py"]\n'
        build(tag, {"Dockerfile": recipe.encode(), "standin.py": script})
    return tag


def _context(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode, info.size = 0o644, len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def empty_archive() -> bytes:
    """An image's file system with nothing in it."""
    return _context({"nothing": b""})


def objects(installation: str) -> list[str]:
    """Names of everything that the engine has of an installation, but the caches, which stay."""
    label = f"label=sandreel.installation={installation}"
    containers = docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").splitlines()
    volumes = docker("volume", "ls", "--filter", label, "--format", "{{.Name}}").splitlines()
    networks = docker("network", "ls", "--filter", label, "--format", "{{.Name}}").splitlines()
    return containers + [name for name in volumes if not name.endswith("-cache")] + networks


def sweep(installation: str) -> None:
    """Away with everything of it."""
    label = f"label=sandreel.installation={installation}"
    for listing, removal in (
        (("ps", "-aq"), ("rm", "-f", "-v")),
        (("volume", "ls", "-q"), ("volume", "rm", "-f")),
        (("network", "ls", "-q"), ("network", "rm")),
    ):
        found = docker(*listing, "--filter", label).split()
        if found:
            docker(*removal, *found)


def unfence(installation: str) -> None:
    """Away with its firewall rules, for a spawner that ended before it could see its last network go."""
    shell, *argv = fence.taking_down(installation)
    host = ("--network", "host", "--user", "0:0", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--tmpfs", "/run")
    docker("run", "--rm", *host, "--entrypoint", shell, image("fence"), *argv)


def build(tag: str, files: dict[str, bytes]) -> None:
    """An image of these files, among them its `Dockerfile`."""
    docker("build", "-q", "-t", tag, "-", stdin=_context(files))


def layers(name: str) -> Iterator[tuple[str, bytes]]:
    """What an image is made of, file by file as `docker save` writes it: its configuration, and its layers, which are archives."""
    with tempfile.TemporaryFile() as saved:
        subprocess.run(["docker", "save", name], stdout=saved, check=True, timeout=120)
        saved.seek(0)
        with tarfile.open(fileobj=saved) as tar:
            for member in tar:
                if member.isfile() and (file := tar.extractfile(member)) is not None:
                    data = file.read()
                    yield member.name, gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def volume_path(name: str) -> Path:
    """Where a volume is on this machine; the engine's own directory where there is none."""
    return Path(docker("info", "-f", "{{.DockerRootDir}}")) / "volumes" / name / "_data"
