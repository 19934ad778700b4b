"""What `sandreel doctor` looks at of a stack that `sandreel up` runs, or was to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sandreel_core.cli.check import Check

if TYPE_CHECKING:
    from sandreel_core.embedded.place import Place


def checks(data: Path) -> list[Check]:
    from sandreel_core.embedded import pidfile
    from sandreel_core.embedded.ending import left_over
    from sandreel_core.embedded.place import Place, check_readable, holder, is_free
    from sandreel_core.embedded.stack import EGRESS, GATEWAY, ROLES
    from sandreel_core.errors import Misconfigured

    place = Place(data)
    pid = holder(data)
    if pid is None:
        try:
            check_readable(data)
            ports = [place.keys().nats_port, place.keys().postgres_port] if place.keys_file.exists() else []
            left = left_over(data)
        except Misconfigured as error:
            return [Check(name="stack", level="fail", found=str(error), mend="restore the file")]
        if left:
            mend = "`sandreel up` takes it over, `sandreel down` ends it"
            return [
                Check(name="stack", level="warn", found="one that was killed has left something running", mend=mend)
            ]
        checks = [Check(name="stack", level="warn", found="not running", mend="start it: sandreel up")]
        for port in ports:
            if not is_free(port):
                found = f"{port} is taken by another program"
                mend = "nothing to do: the next `sandreel up` takes another one"
                checks.append(Check(name="port", level="warn", found=found, mend=mend))
        return checks
    checks = [Check(name="stack", level="ok", found=f"running, pid {pid}")]
    for name in ROLES:
        role = pidfile.alive(place.pid(name))
        if role is not None:
            checks.append(Check(name=name, level="ok", found=f"running, pid {role}"))
        else:
            mend = f"wait: it is started again; if it stays away, {place.log(name)} says why"
            checks.append(Check(name=name, level="fail", found="not running", mend=mend))
    docker = "the engine says why (`docker logs`, `docker events`)"
    return [*checks, *_part(place, EGRESS, docker), *_part(place, GATEWAY, f"{place.log(GATEWAY)} says why")]


def _part(place: Place, name: str, why: str) -> list[Check]:
    """One that a stack has or has not: the way out, and the one to models."""
    from sandreel_core.embedded import roster

    entry = roster.read(place.parts).get(name)
    if entry is None:
        return []
    if entry.state == "ready":
        return [Check(name=name, level="ok", found=f"running, pid {entry.pid}")]
    if entry.state == "stopped":
        return [Check(name=name, level="warn", found=entry.detail, mend="make image, then start sandreel again")]
    mend = f"wait: it is started again; if it stays away, {why}"
    return [Check(name=name, level="fail", found=roster.why_down(entry), mend=mend)]
