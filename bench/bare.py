"""The references: the least that anybody would have to write for the same job, with nothing of sandreel in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

STREAM = "BENCH"
WINDOW = 64
READ_BYTES = 64 * 1024
PIPE_BYTES = 256 * 1024
PULL_BATCH = 64
PULL_BYTES = 8 * 1024 * 1024

# Prints `n` lines of 100 bytes as fast as a pipe takes them.
CHATTER = """
import os, sys
n = int(sys.argv[1]); block = b''.join(b'%099d\\n' % i for i in range(5000))
while n > 0:
    take = min(n, 5000); view = memoryview(block)[: take * 100]; n -= take
    while view: view = view[os.write(1, view):]
"""


def chatter(lines: int, python: str = sys.executable) -> list[str]:
    """argv of a child that prints so many lines of 100 bytes."""
    return [python, "-I", "-c", CHATTER, str(lines)]


def stamped(burst: int) -> str:
    """`burst` lines of 100 bytes that say what time it is."""
    return (f"{time.time():.6f}".ljust(99, ".") + "\n") * burst


def ages(text: str | bytes) -> list[float]:
    """How old each line of `stamped` is, seconds."""
    now = time.time()
    return [now - float(line[:17]) for line in text.splitlines()]


class Block(msgspec.Struct):
    stream: str
    line: int
    count: int
    text: str


async def connect(url: str, creds: str) -> Client:
    """Connected, with an empty stream of its own on the server that sandreel uses (so the same fsync)."""
    client = await nats.connect(url, user_credentials=creds, pending_size=64 * 1024 * 1024)
    client.options["user_credentials"] = creds  # for `address`
    js = client.jetstream()
    with contextlib.suppress(NotFoundError):
        await js.delete_stream(STREAM)
    await js.add_stream(StreamConfig(name=STREAM, subjects=["bench.>"], storage=StorageType.FILE))
    return client


class Publisher:
    """Pipelined publishing with a window of unacknowledged messages and one reply inbox."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.inbox = client.new_inbox()
        self.sent = self.acked = 0
        self._wake = asyncio.Event()

    async def start(self) -> Publisher:
        await self.client.subscribe(self.inbox, cb=self._on_ack)
        return self

    async def _on_ack(self, message: Msg) -> None:
        if b'"error"' in message.data:
            raise RuntimeError(message.data.decode())
        self.acked += 1
        self._wake.set()

    async def publish(self, subject: str, body: bytes) -> None:
        while self.sent - self.acked >= WINDOW:
            self._wake.clear()
            await self._wake.wait()
        self.sent += 1
        await self.client.publish(subject, body, reply=self.inbox)

    async def drain(self) -> None:
        while self.acked < self.sent:
            self._wake.clear()
            await self._wake.wait()


async def pipe_to_acked(client: Client, lines: int, subject: str = "bench.out") -> float:
    """Seconds for: child prints lines → read → JSON blocks → every one acknowledged."""
    publisher = await Publisher(client).start()
    loop = asyncio.get_running_loop()
    encoder = msgspec.json.Encoder()
    began = time.perf_counter()
    child = subprocess.Popen(chatter(lines), stdout=subprocess.PIPE, pipesize=PIPE_BYTES)
    assert child.stdout is not None
    fd = child.stdout.fileno()
    os.set_blocking(fd, False)
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    line, rest = 1, b""
    while True:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            ready.clear()
            await ready.wait()
            continue
        if not data:
            break
        data = rest + data
        cut = data.rfind(b"\n") + 1
        rest, data = data[cut:], data[:cut]
        if data:
            count = data.count(b"\n")
            await publisher.publish(subject, encoder.encode(Block("stdout", line, count, data.decode())))
            line += count
    loop.remove_reader(fd)
    await publisher.drain()
    took = time.perf_counter() - began
    child.wait()
    assert line == lines + 1, (line, lines)
    return took


async def pull(
    client: Client, subject: str, on_body: Callable[[bytes], bool], *, start: int = 0, stream: str = STREAM
) -> None:
    """A bounded pull loop over an ephemeral consumer in memory, without acknowledgements, until `on_body` says stop."""
    js = client.jetstream()
    config = ConsumerConfig(
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        inactive_threshold=30,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE if start else DeliverPolicy.ALL,
        opt_start_seq=start or None,
    )
    info = await js.add_consumer(stream, config)
    inbox = client.new_inbox()
    ready: list[bytes] = []
    wake = asyncio.Event()
    outstanding = 0

    async def on_message(message: Msg) -> None:
        nonlocal outstanding
        if message.headers and "Status" in message.headers:
            outstanding -= int(message.headers.get("Nats-Pending-Messages", "0"))
        else:
            outstanding -= 1
            ready.append(message.data)
        wake.set()

    subscription = await client.subscribe(inbox, cb=on_message, pending_bytes_limit=256 * 1024 * 1024)
    ask = json.dumps({"batch": PULL_BATCH, "max_bytes": PULL_BYTES, "expires": 5_000_000_000}).encode()
    try:
        while True:
            if outstanding <= PULL_BATCH // 2:
                outstanding += PULL_BATCH
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{info.name}", ask, reply=inbox)
            if not ready:
                wake.clear()
                await wake.wait()
            bodies, ready[:] = ready[:], []
            for body in bodies:
                if on_body(body):
                    return
    finally:
        await subscription.unsubscribe()
        await js.delete_consumer(stream, info.name)


async def readline_loop(lines: int) -> float:
    """Seconds of a plain asyncio `readline()` loop over the same child's pipe; nothing is stored."""
    began = time.perf_counter()
    child = await asyncio.create_subprocess_exec(*chatter(lines), stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    seen = 0
    while await child.stdout.readline():
        seen += 1
    await child.wait()
    assert seen == lines
    return time.perf_counter() - began


def address(client: Client) -> bytes:
    """Where the client is connected, and with which credentials file, for a process of its own."""
    return json.dumps([str(client.servers[0].netloc), client.options["user_credentials"]]).encode()


async def aside(client: Client, *words: str) -> asyncio.subprocess.Process:
    """`python -m bench.bare WORDS`: a process of its own, that connects as `client` did."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare", *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(address(client))
    process.stdin.close()
    return process


async def begun(process: asyncio.subprocess.Process) -> None:
    """What it took to start Python is over: it has said so."""
    assert process.stdout is not None
    await process.stdout.readline()


async def _publish_alone(lines: int, subject: str) -> None:
    netloc, creds = json.loads(sys.stdin.read())
    client = await nats.connect(f"nats://{netloc}", user_credentials=creds, pending_size=64 * 1024 * 1024)
    print("begin", flush=True)  # what it took to start Python is not part of the job
    await pipe_to_acked(client, lines, subject)
    await client.close()


async def _tick_alone(rate: int, count: int, burst: int, subject: str) -> None:
    """Publish `count` blocks at `rate` a second, each of `burst` lines that say when it was made."""
    netloc, creds = json.loads(sys.stdin.read())
    client = await nats.connect(f"nats://{netloc}", user_credentials=creds)
    publisher = await Publisher(client).start()
    due = time.perf_counter()
    for _ in range(count):
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        text = stamped(burst)
        await publisher.publish(subject, msgspec.json.encode(Block("stdout", 1, burst, text)))
    await publisher.drain()
    await client.close()


async def _echo_alone(key: str, subject: str) -> None:
    """Whenever a key is pressed, publish it into the stream: what a terminal's echo is at the least."""
    netloc, creds = json.loads(sys.stdin.read())
    client = await nats.connect(f"nats://{netloc}", user_credentials=creds)
    publisher = await Publisher(client).start()

    async def pressed(message: Msg) -> None:
        await publisher.publish(subject, msgspec.json.encode(Block("stdout", 1, 0, message.data.decode())))
        await client.publish(message.reply, b"{}")

    await client.subscribe(key, cb=pressed)
    await client.flush()
    print("begin", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "publish":
        asyncio.run(_publish_alone(int(sys.argv[2]), sys.argv[3]))
    elif sys.argv[1] == "echo":
        asyncio.run(_echo_alone(sys.argv[2], sys.argv[3]))
    else:
        rate, count, burst = map(int, sys.argv[2:5])
        asyncio.run(_tick_alone(rate, count, burst, sys.argv[5]))
