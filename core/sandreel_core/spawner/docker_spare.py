"""A spare: a container that was started before anybody asked for it, whose runnerd waits to be told who it is. Pure.

It is like any sandbox of its org and profile, but for what says whose it is: labels and volumes cannot be changed afterwards,
names can. So the name of a spare's container becomes the boot's when it is taken, and of its files the session's own volume,
which is empty then, says in a label where they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandreel_core.contract.session import Limits, Profile
from sandreel_core.errors import Misconfigured
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import BootSpec, Key, boot_order

# The token of a spare, on its container and on its volume, for as long as they exist.
SPARE = "sandreel.spare"
# On a session's own volume: the name of the volume that has the files.
FILES = "sandreel.files"

# Of the 61 addresses of an org's network most are for sessions; and every spare has the memory of an idle one.
MAX_OF_ORG, MAX_SPARES = 16, 64

_ORG, _COUNT = re.compile(r"[A-Za-z0-9_-]{1,128}"), re.compile(r"[1-9][0-9]?")
_BOOT = re.compile(r"sandreel-(?P<session>[A-Za-z0-9_-]{1,64})-(?P<mark>[0-9a-f]{16})-(?P<boot>[0-9]+-[0-9]+)")


@dataclass(frozen=True, slots=True)
class Warm:
    """What spares of one pool are made for. `image` None: what sessions of the profile get that name none."""

    org: str
    profile: Profile
    image: str | None
    count: int

    @classmethod
    def read(cls, text: str) -> Warm:
        """`org/profile[/image]=count`, as `[docker] warm` has it. Raises Misconfigured."""
        what, _, count = text.rpartition("=")
        org, profile, image = (*what.split("/", 2), "", "")[:3]

        def wrong(why: str) -> Misconfigured:
            return Misconfigured(f"[docker] warm {text!r}: {why} (org/profile[/image]=count, e.g. acme/default=2)")

        if not _ORG.fullmatch(org):
            raise wrong(f"{org!r} is no organisation's id")
        if profile not in ("default", "agent"):
            raise wrong(f"profile {profile!r} is neither default nor agent")
        if image and not plan.IMAGE.fullmatch(image):
            raise wrong(f"{image!r} is no name of an image")
        if not _COUNT.fullmatch(count) or int(count) > MAX_OF_ORG:
            raise wrong(f"{count!r} is no count from 1 to {MAX_OF_ORG}")
        return cls(org, "agent" if profile == "agent" else "default", image or None, int(count))

    def fits(self, spec: BootSpec) -> bool:
        """Whether a spare can become this boot: the first of a session that asks for nothing of its own."""
        asked = spec.limits
        own = asked.cpus or asked.memory_bytes or asked.pids or asked.disk_bytes
        first = spec.fresh and spec.boot == 1
        same = (self.org, self.profile, self.image) == (spec.key.org, spec.profile, spec.image)
        return first and same and not own


def check(warm: Sequence[Warm]) -> None:
    """Raises Misconfigured for pools that are too large, or told twice."""
    by_org: dict[str, int] = {}
    for each in warm:
        by_org[each.org] = by_org.get(each.org, 0) + each.count
    for org, count in by_org.items():
        if count > MAX_OF_ORG:
            raise Misconfigured(
                f"[docker] warm: {count} spares for org {org}, and its network has room for {MAX_OF_ORG}"
            )
    if (total := sum(by_org.values())) > MAX_SPARES:
        raise Misconfigured(f"[docker] warm: {total} spares in all, and {MAX_SPARES} are the most")
    pools = [(each.org, each.profile, each.image) for each in warm]
    if len(set(pools)) < len(pools):
        raise Misconfigured("[docker] warm names a pool twice: give each org, profile and image one count")


def container_name(installation: str, token: str) -> str:
    return f"sandreel-spare-{plan.mark(installation)}-{token}"


def volume_name(installation: str, token: str) -> str:
    return f"{container_name(installation, token)}-workspace"


def labels(terms: plan.Terms, warm: Warm, token: str) -> dict[str, str]:
    """Those of a session's container, short of the session."""
    return plan.org_labels(terms.installation, warm.org, "session") | {
        plan.PROFILE: warm.profile,
        plan.NODE: terms.node,
        plan.FENCE: terms.fence,
        SPARE: token,
    }


def volume_labels(installation: str, org: str, token: str) -> dict[str, str]:
    return plan.org_labels(installation, org, "workspace") | {SPARE: token}


def container(terms: plan.Terms, warm: Warm, token: str, *, image: str, spool_bytes: int) -> dict[str, Any]:
    """The body of `POST /containers/create`. Raises Misconfigured."""
    return plan.sandbox_container(
        terms,
        warm.org,
        warm.profile,
        Limits(),
        image=image,
        workspace=plan.volume_mount(volume_name(terms.installation, token), plan.WORKSPACE),
        labels=labels(terms, warm, token),
        environment={},
        spool_bytes=spool_bytes,
    )


def named(found: Mapping[str, str], name: str) -> Mapping[str, str]:
    """A container's labels; of a spare that was taken with those that its name says. One that was not has no SESSION."""
    if plan.SESSION in found or SPARE not in found:
        return found
    told = _BOOT.fullmatch(name)
    if told is None:
        return found
    key = Key(found.get(plan.ORG, ""), told["session"])
    if plan.mark(found.get(plan.INSTALLATION, ""), *key) != told["mark"]:
        return found
    incarnation, _ = boot_order(told["boot"])
    return {**found, plan.SESSION: key.session, plan.BOOT: told["boot"], plan.INCARNATION: str(incarnation)}
