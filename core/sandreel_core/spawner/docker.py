"""The container engine: with `docker_failure`, all that knows the `docker` SDK. Its calls block, so each runs in a thread.

Every exception of the SDK leaves this room as one of ours: NotFound (no such object), AlreadyExists (the name or the
address is taken), Conflict (not in this state), Refused (the engine does not take what it was asked), Unavailable
(it is not there, too slow, full, or broken).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, TypeVar

import docker
import docker.utils
import requests

from sandreel_core.errors import AlreadyExists, NotFound
from sandreel_core.spawner.docker_events import heard
from sandreel_core.spawner.docker_failure import FAILURES, is_late, ours
from sandreel_core.spawner.docker_line import Line

T = TypeVar("T")
TIMEOUT_S = 30.0  # behaviour §2.5: `run` within 30 s
_UNIX = "unix://"
_SOCKET = f"{_UNIX}/var/run/docker.sock"
_THREADS = 32  # twice what the spawner does at once, for a wait keeps one busy


class Engine:
    """A client of one engine, which need not answer yet. Made by `open`; its objects are what the API says of them."""

    def __init__(self, url: str | None, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: docker.APIClient | None = None
        self._connecting = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[Engine, None]:
        """`url` None: what DOCKER_HOST and its like say, else the machine's own socket."""
        engine = cls(url, timeout_s)
        try:
            yield engine
        finally:
            engine._threads.shutdown(wait=False, cancel_futures=True)
            if engine._client is not None:
                engine._client.close()

    def _api(self) -> docker.APIClient:
        with self._connecting:
            if self._client is None:
                self._client = self._connect("auto")
            return self._client

    def _connect(self, version: str) -> docker.APIClient:
        given = {"base_url": self._url} if self._url else docker.utils.kwargs_from_env()
        # The SDK forgets to close the socket with which it cannot connect: nobody is there, say it before.
        url = given.get("base_url", _SOCKET)
        if url.startswith(_UNIX):
            with socket.socket(socket.AF_UNIX) as knock:
                knock.connect(url.removeprefix(_UNIX))
        return docker.APIClient(version=version, timeout=self._timeout_s, max_pool_size=_THREADS, **given)

    async def _ask(self, question: Callable[[docker.APIClient], T]) -> T:
        def ask() -> T:
            try:
                return question(self._api())
            except FAILURES as error:
                raise ours(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    # -- the engine itself

    async def info(self) -> dict[str, Any]:
        return await self._ask(lambda api: dict(api.info()))

    async def ping(self) -> None:
        """Whether it takes new connections: one that is being stopped answers its old ones until the end."""

        def ping(api: docker.APIClient) -> None:
            with closing(self._connect(api.api_version)) as fresh:
                fresh.ping()

        await self._ask(ping)

    async def image(self, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        return await self._ask(lambda api: dict(api.inspect_image(name)))

    # -- containers

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """The container's id. Raises AlreadyExists when the name is taken."""
        return await self._ask(lambda api: str(api.create_container_from_config(dict(body), name)["Id"]))

    async def start(self, id: str, stdin: bytes | None = None) -> None:
        """`stdin` is all that its main process ever reads there (some KiB). The engine has it whole before it starts
        anything: whoever dies in between leaves a container that was never started."""

        def start(api: docker.APIClient) -> None:
            if stdin is None:
                api.start(id)
                return
            with closing(Line(api.attach_socket(id, {"stdin": 1, "stream": 1}), self._timeout_s)) as line:
                line.write(stdin)
                api.start(id)

        await self._ask(start)

    async def start_held(self, id: str) -> Line:
        """Started, and its standard input held open. It ends with whoever holds it, also when that is killed."""

        def start(api: docker.APIClient) -> Line:
            line = Line(api.attach_socket(id, {"stdin": 1, "stream": 1}), self._timeout_s)
            try:
                api.start(id)
            except BaseException:
                line.close()
                raise
            return line

        return await self._ask(start)

    async def tell(self, line: Line, stdin: bytes) -> None:
        """All that the main process ever reads of it."""

        def tell(_: docker.APIClient) -> None:
            try:
                line.write(stdin)
            finally:
                line.close()

        await self._ask(tell)

    async def container(self, id: str) -> dict[str, Any]:
        """By id or name. Raises NotFound."""
        return await self._ask(lambda api: dict(api.inspect_container(id)))

    async def containers(self, labels: Mapping[str, str], name: str | None = None) -> list[dict[str, Any]]:
        """In any state, with all of these labels and, if given, a name in which this expression is found."""
        filters = {"label": label_pairs(labels)} | ({"name": [name]} if name is not None else {})
        return await self._ask(lambda api: list(api.containers(all=True, filters=filters)))

    async def rename(self, id: str, name: str) -> None:
        """Raises AlreadyExists when the name is taken, NotFound."""
        await self._ask(lambda api: api.rename(id, name))

    async def kill(self, id: str, signal: str) -> None:
        """Raises Conflict when it does not run."""
        await self._ask(lambda api: api.kill(id, signal))

    async def ended(self, id: str, within_s: float) -> bool:
        """Whether it does not run (any more), after `within_s` at the latest, which nobody can cut short. Raises NotFound."""
        return await self.exit_code(id, within_s) is not None

    async def exit_code(self, id: str, within_s: float) -> int | None:
        """Of its main process, as in a shell, as soon as the engine knows that it has ended: what held it together (its
        network) may be taken down later than that, and a listing tell later of it. None after `within_s`, which nobody
        can cut short. Raises NotFound."""

        def wait(api: docker.APIClient) -> int | None:
            try:
                return int(api.wait(id, timeout=max(within_s, 0.01), condition="not-running")["StatusCode"])
            except (requests.ReadTimeout, requests.ConnectionError) as error:
                if not is_late(error):
                    raise
                return None

        return await self._ask(wait)

    async def remove(self, id: str, *, force: bool = False) -> None:
        """What is not there is removed already. Raises Conflict when it runs, unless `force`."""
        await self._gone(lambda api: api.remove_container(id, v=True, force=force))

    async def unpack(self, id: str, path: str, archive: bytes) -> None:
        """A tar archive into a container that need not run, or its mounts."""
        await self._ask(lambda api: api.put_archive(id, path, archive))

    async def beginning(self, id: str, path: str, max_bytes: int) -> bytes:
        """Of a tar archive of what is at a place in a container that need not run, or in its mounts. Raises NotFound."""

        def read(api: docker.APIClient) -> bytes:
            # The SDK's own call yields pieces, and keeps its socket when the rest is not wanted.
            url = api._url("/containers/{0}/archive", id)
            with closing(api._get(url, params={"path": path}, stream=True)) as answer:
                api._raise_for_status(answer)
                return bytes(answer.raw.read(max_bytes))

        return await self._ask(read)

    async def logs(self, id: str, lines: int = 20) -> str:
        """The end of what its main process printed."""
        raw = await self._ask(lambda api: bytes(api.logs(id, tail=lines)))
        return raw.decode(errors="replace").strip()

    async def output(self, id: str, *, errors: bool, max_bytes: int) -> str:
        """What its main process has printed so far, with standard error if `errors`."""
        raw = await self._ask(lambda api: bytes(api.logs(id, stdout=True, stderr=errors)[:max_bytes]))
        return raw.decode(errors="replace")

    # -- volumes

    async def make_volume(self, name: str, labels: Mapping[str, str], options: Mapping[str, str] | None = None) -> None:
        await self._ask(lambda api: api.create_volume(name, driver_opts=dict(options or {}), labels=dict(labels)))

    async def volume(self, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        return await self._ask(lambda api: dict(api.inspect_volume(name)))

    async def volumes(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        return await self._ask(lambda api: list(api.volumes(filters={"label": label_pairs(labels)})["Volumes"] or []))

    async def remove_volume(self, name: str) -> None:
        """Raises Conflict when a container has it."""
        await self._gone(lambda api: api.remove_volume(name))

    # -- networks

    async def make_network(self, body: Mapping[str, Any]) -> None:
        """Raises AlreadyExists when the name or an address of the subnet is taken."""

        def make(api: docker.APIClient) -> None:
            # The SDK's own call has no place for a bridge's name beside labels and addresses in one go.
            url = api._url("/networks/create")
            api._raise_for_status(api._post_json(url, data=dict(body)))

        await self._ask(make)

    async def network(self, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        return await self._ask(lambda api: dict(api.inspect_network(name)))

    async def networks(self, labels: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        return await self._ask(lambda api: list(api.networks(filters={"label": label_pairs(labels or {})})))

    async def join(self, network: str, container: str, alias: str) -> None:
        """What has joined stays so. Raises NotFound."""
        try:
            await self._ask(lambda api: api.connect_container_to_network(container, network, aliases=[alias]))
        except AlreadyExists:
            return

    async def leave(self, network: str, container: str) -> None:
        await self._gone(lambda api: api.disconnect_container_from_network(container, network, force=True))

    async def remove_network(self, name: str) -> None:
        """Raises Conflict while something is in it."""
        await self._gone(lambda api: api.remove_network(name))

    async def _gone(self, question: Callable[[docker.APIClient], object]) -> None:
        with suppress(NotFound):
            await self._ask(question)

    # -- what happens

    async def history(self, id: str, *, until: float) -> tuple[list[dict[str, Any]], int]:
        """What the engine still remembers of a container, oldest first, and how much it remembers at all, up to a time
        by its own clock (seconds since 1970)."""

        def read(api: docker.APIClient) -> tuple[list[dict[str, Any]], int]:
            asked = {"since": 0, "until": f"{until:.6f}", "decode": True}
            own = list(api.events(filters={"type": ["container"], "container": [id]}, **asked))
            return own, sum(1 for _ in api.events(**asked))

        return await self._ask(read)

    @asynccontextmanager
    async def events(
        self, about: Mapping[str, Sequence[str]], *, since: float
    ) -> AsyncGenerator[AsyncIterator[dict[str, Any]], None]:
        """What happens to containers, from `since` (seconds since 1970) on. It ends with Unavailable, when the engine goes or
        nobody listens.

        about  the API's filters: `event`, `container` (names), `label` (name=value)
        """
        stream = await self._ask(
            lambda api: api.events(since=f"{since:.6f}", filters={"type": ["container"], **about}, decode=True)
        )
        async with heard(stream) as events:
            yield events


def label_pairs(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in labels.items()]
