"""Settings of the docker backend: `[docker]` and `SANDREEL_DOCKER_*`. The spawner's, and those of whoever runs the bus for it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.settings import Section

# Under which name sessions find the bus in their org's network.
BUS_ALIAS = "nats"
EGRESS_ALIAS = "egress"
GATEWAY_ALIAS = "gateway"
Service = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(=[a-z0-9][a-z0-9-]*)?(:[1-9][0-9]{0,4})?$")]
Image = Annotated[str, Meta(min_length=1, max_length=512)]


class DockerSettings(Section, frozen=True, kw_only=True):
    """
    host        of the engine; absent: DOCKER_HOST, else the machine's own socket
    image       for sessions that name none; absent: what `make image` builds of this version
    agent_image for those of them that have the profile `agent`, as turns make them; absent: where `image` is absent too, the
                fullest with agents in it that `make image` has built, else as for all
    nats_image  of the bus that `sandreel up` runs; absent: NATS_IMAGE, else what `make image` builds
    workspaces  `volumes`, or a directory of the host that engine and spawner see at the same place
    disk_bytes  how much a workspace may hold, where a session sets no limit of its own
    pool        every org's network gets a /26 of this range
    warm        pools of containers that were started before anybody asked: `org/profile[/image]=count`, e.g. `acme/default=2`; each
                waits with the memory of an idle session, and a session's first boot that asks for no limits of
                its own takes one. Needs workspaces that are volumes
    services    containers that every org reaches, as `container[=alias][:port]`, at this port alone (4222)
    unfenced    sessions start without a proof that nothing gets out of their network
    fence_image of what raises and proves the fence; absent: what `make image` builds
    egress_image of the proxy that `sandreel up` runs; absent: what `make image` builds
    proxy       by which sessions reach the world; absent: the one that `sandreel up` runs, else they do not
    """

    section: ClassVar[str] = "docker"
    host: Annotated[str, Meta(pattern=r"^(unix|tcp|https?|ssh)://.+")] | None = None
    image: Image | None = None
    agent_image: Image | None = None
    nats_image: Image | None = None
    workspaces: Annotated[str, Meta(pattern=r"^(volumes|/.+)$")] = "volumes"
    disk_bytes: Annotated[int, Meta(ge=1 << 20)] | None = None
    pool: Annotated[str, Meta(pattern=r"^[0-9.]+/[0-9]+$")] = "10.231.0.0/16"
    warm: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=16)] = ()
    services: Annotated[tuple[Service, ...], Meta(max_length=16)] = ()
    unfenced: bool = False
    fence_image: Image | None = None
    egress_image: Image | None = None
    proxy: Annotated[str, Meta(pattern=r"^http://.+")] | None = None
