"""A backend that runs nothing: tests say when a boot ends and when it cannot be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sandreel_core.errors import AlreadyExists, Conflict, Denied, NotFound, SandreelError, Unavailable
from sandreel_core.spawner.backend import BootSpec, Cause, Death, Key, Sandbox, boot_order


class FakeBackend:
    name = "fake"
    single_node = True
    exclusive_names = False
    node = "here"

    def __init__(self) -> None:
        self.sandboxes: dict[Key, Sandbox] = {}
        self.workspaces: dict[Key, set[str]] = {}
        self.specs: list[BootSpec] = []
        self.calls: list[str] = []
        self.silent = False
        self.create_error: SandreelError | None = None
        self.stop_error: SandreelError | None = None
        self._ended: asyncio.Queue[Key] = asyncio.Queue()

    def die(self, key: Key, cause: Cause = "killed", exit_code: int | None = None) -> None:
        """The boot's main process is gone."""
        self.sandboxes[key] = replace(self.sandboxes[key], status="exited", death=Death(cause, exit_code))
        self._ended.put_nowait(key)

    def _ask(self) -> None:
        if self.silent:
            raise Unavailable("the engine does not answer", retry_after_s=0.05)

    async def create(self, spec: BootSpec) -> Sandbox:
        self._ask()
        self.calls.append(f"create {spec.boot_id}")
        if self.create_error is not None:
            raise self.create_error
        found = self.sandboxes.get(spec.key)
        if found is not None and found.status != "dead":
            raise AlreadyExists("there is a boot")
        if not spec.fresh and spec.key not in self.workspaces:
            raise NotFound("the workspace is not there")
        self.workspaces.setdefault(spec.key, set())
        self.specs.append(spec)
        sandbox = Sandbox(
            key=spec.key,
            installation=spec.settings.installation,
            incarnation=spec.incarnation,
            boot_id=spec.boot_id,
            profile=spec.profile,
            status="running",
            ref=f"fake:{len(self.specs)}",
            node=self.node,
            created_at=datetime.now(UTC),
        )
        self.sandboxes[spec.key] = sandbox
        return sandbox

    async def stop(self, key: Key, boot_id: str, *, grace_s: float) -> Death:
        self._ask()
        self.calls.append(f"stop {boot_id}")
        if self.stop_error is not None:
            raise self.stop_error
        found = self.sandboxes.get(key)
        if found is None or found.boot_id != boot_id:
            raise NotFound("there is no such boot")
        death = found.death or Death("exited", 0)
        if found.status != "dead":
            self._ended.put_nowait(key)  # a real one's end is heard of too
        self.sandboxes[key] = replace(found, status="dead", death=death)
        return death

    async def destroy(self, key: Key, *, installation: str, boot_id: str) -> None:
        self._ask()
        self.calls.append("destroy")
        found = self.sandboxes.get(key)
        if found is not None and found.installation != installation:
            raise Denied("it belongs to another installation")
        if found is not None and boot_order(found.boot_id) > boot_order(boot_id):
            raise Conflict("there is a later boot")
        if found is not None and found.status != "dead":
            raise Conflict("the boot is not dead")
        self.sandboxes.pop(key, None)
        self.workspaces.pop(key, None)

    async def inspect(self, key: Key) -> Sandbox | None:
        self._ask()
        return self.sandboxes.get(key)

    async def list(self) -> Sequence[Sandbox]:
        self._ask()
        return list(self.sandboxes.values())

    async def watch(self) -> AsyncGenerator[Key, None]:
        while True:
            yield await self._ended.get()
