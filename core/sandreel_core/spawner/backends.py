"""Which backend the settings name, opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from sandreel_core.contract.session import Profile
from sandreel_core.errors import Misconfigured
from sandreel_core.images import Kind, image
from sandreel_core.metrics import Metrics
from sandreel_core.spawner.backend import Backend
from sandreel_core.spawner.docker_settings import DockerSettings
from sandreel_core.spawner.process import ProcessBackend
from sandreel_core.spawner.settings import Settings, user

_WITH_AGENTS: tuple[Kind, ...] = ("session", "session-agents")


@asynccontextmanager
async def open_backend(
    settings: Settings, installation: str, *, metrics: Metrics | None = None
) -> AsyncGenerator[Backend, None]:
    """Raises Misconfigured."""
    users: Mapping[Profile, tuple[int, int]] = {
        "default": user(settings.default_user),
        "agent": user(settings.agent_user),
    }
    if settings.backend != "docker":
        opened = _process(settings, users)
    else:
        opened = _docker(settings, installation, users, metrics)
    async with opened as backend:
        yield backend


@asynccontextmanager
async def _process(settings: Settings, users: Mapping[Profile, tuple[int, int]]) -> AsyncGenerator[Backend, None]:
    async with ProcessBackend.open(
        Path(settings.data),
        node=settings.node_name,
        users=users,
        box={"auto": None, "on": True, "off": False}[settings.bubblewrap],
        hidden=[Path(path) for path in settings.hidden],
    ) as backend:
        yield backend


@asynccontextmanager
async def _docker(
    settings: Settings, installation: str, users: Mapping[Profile, tuple[int, int]], metrics: Metrics | None
) -> AsyncGenerator[Backend, None]:
    try:
        # Here, and not above: whoever has no container engine need not have its SDK.
        from sandreel_core.spawner.docker_backend import DockerBackend  # noqa: PLC0415
        from sandreel_core.spawner.docker_network import Service  # noqa: PLC0415
        from sandreel_core.spawner.docker_plan import Terms  # noqa: PLC0415
        from sandreel_core.spawner.docker_spare import Warm  # noqa: PLC0415
    except ImportError as error:
        raise Misconfigured("the docker backend needs its SDK: pip install 'sandreel[docker]'") from error
    docker = settings.docker
    services = [Service.read(text) for text in docker.services]
    terms = Terms(
        installation=installation,
        node=settings.node_name,
        image=docker.image or str(await asyncio.to_thread(image, "session-slim")),
        agent_images=await _agent_images(docker),
        users=users,
        proxy=docker.proxy,
        direct=("127.0.0.1", "localhost", *(service.alias for service in services)),
    )
    try:
        async with DockerBackend.open(
            terms,
            locks=Path(settings.data) / "locks",
            url=docker.host,
            workspaces=None if docker.workspaces == "volumes" else Path(docker.workspaces),
            pool=docker.pool,
            services=services,
            fence_image=None if docker.unfenced else docker.fence_image or str(await asyncio.to_thread(image, "fence")),
            disk_bytes=docker.disk_bytes,
            warm=[Warm.read(text) for text in docker.warm],
            spool_bytes=settings.runnerd_spool_bytes,
            metrics=metrics,
        ) as backend:
            yield backend
    except OSError as error:
        raise Misconfigured(f"[spawner] data {settings.data} cannot be used: {error.strerror}") from error


async def _agent_images(docker: DockerSettings) -> tuple[str, ...]:
    """Those that are named, else those with agents in them that `make image` builds, the fullest first."""
    if docker.agent_image or docker.image:
        return (docker.agent_image,) if docker.agent_image else ()
    return tuple([await asyncio.to_thread(image, kind) for kind in _WITH_AGENTS])
