"""What an image is made of, as CycloneDX 1.6 (JSON) on standard output. Runs inside the image while it is built.

Debian's packages, Python distributions and npm packages with their versions, as far as their own package managers have
written them down; what an npm package has bundled into one file is not seen apart. Only the standard library; the same bytes for the same image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Where an image keeps what no Debian package brought: the programs of its own, and python.org's library in an ordinary base.
ROOTS = (Path("/opt"), Path("/usr/local/lib"))
# For the version of a package whose own licence field is free text: longer ones are whole licences.
_MAX_LICENCE = 100


def main(name: str) -> None:
    components = {each["bom-ref"]: each for part in (debian(), python(), npm()) for each in part}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "bom-ref": name}},
        "components": [components[ref] for ref in sorted(components)],
    }
    json.dump(bill, sys.stdout, indent=1)


def debian() -> Iterator[dict[str, Any]]:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    distro = f"{release['ID']}-{release['VERSION_ID']}".replace('"', "")
    shape = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", shape], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        status, package, version, architecture = line.split("\t")
        if status == "installed":
            purl = f"pkg:deb/debian/{quote(package)}@{quote(version)}?arch={architecture}&distro={distro}"
            yield component(package, version, purl, None)


def python() -> Iterator[dict[str, Any]]:
    for root in ROOTS:
        for path in root.rglob("*.dist-info/METADATA"):
            fields = HeaderParser().parsestr(path.read_text(errors="replace"))
            name, version = fields["Name"], fields["Version"]
            licence = fields["License-Expression"] or fields["License"]
            yield component(
                name, version, f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}", licence
            )


def npm() -> Iterator[dict[str, Any]]:
    for root in ROOTS:
        for path in root.rglob("package.json"):
            # node_modules/<name> or node_modules/@<scope>/<name>: others are parts of a package, or its test data.
            if "node_modules" not in (path.parents[1].name, path.parents[2].name):
                continue
            package = json.loads(path.read_bytes())
            name, version = package.get("name"), package.get("version")
            if isinstance(name, str) and isinstance(version, str):
                yield component(name, version, f"pkg:npm/{quote(name)}@{quote(version)}", package.get("license"))


def component(name: str, version: str, purl: str, licence: object) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if isinstance(licence, str) and 0 < len(licence) <= _MAX_LICENCE and "\n" not in licence:
        found["licenses"] = [{"license": {"name": licence}}]
    return found


if __name__ == "__main__":
    main(sys.argv[1])
