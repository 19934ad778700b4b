"""Reading a role's `/healthz` and `/metrics`, for whoever looks after it. Bounded as what it reads from."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import msgspec

from sandreel_core.errors import Malformed, Unavailable
from sandreel_core.health import Report
from sandreel_core.health_endpoint import address

# 4096 partitions with ten series each and room to spare.
MAX_ANSWER_BYTES = 16 << 20
WITHIN_S = 5.0
_SAMPLE = re.compile(r"([a-z][a-z0-9_]*)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'([a-z][a-z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a role said of itself."""

    report: Report
    samples: tuple[Sample, ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series of this name that have these labels; 0 without any."""
        return sum(sample.value for sample in self.named(name, **labels))

    def named(self, name: str, **labels: str) -> list[Sample]:
        return [each for each in self.samples if each.name == name and labels.items() <= each.labels.items()]


async def read(listen: str) -> Reading:
    """Both documents of the role at `HOST:PORT`. Raises Unavailable when nobody answers in time or in order."""
    try:
        report = msgspec.json.decode(await get(listen, "/healthz"), type=Report)
        return Reading(report, samples((await get(listen, "/metrics")).decode()))
    except (msgspec.DecodeError, UnicodeDecodeError, Malformed) as error:
        raise Unavailable(f"what answers at {listen} is no role of sandreel") from error


async def get(listen: str, path: str) -> bytes:
    """The body, whatever the status. Raises Unavailable, Misconfigured for an address that is none."""
    host, port = address(listen)
    try:
        async with asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                answer = await _all(reader, listen)
            finally:
                writer.transport.abort()
    except TimeoutError as error:
        raise Unavailable(f"{listen} does not answer within {WITHIN_S:g} s") from error
    except OSError as error:
        raise Unavailable(f"{listen} does not answer: {(error.strerror or str(error)).lower()}") from error
    if not answer:
        raise Unavailable(f"{listen} does not answer: it ended the connection")
    head, gap, body = answer.partition(b"\r\n\r\n")
    if not gap or not head.startswith(b"HTTP/1."):
        raise Unavailable(f"what answers at {listen} is no role of sandreel")
    return body


async def _all(reader: asyncio.StreamReader, listen: str) -> bytes:
    answer = bytearray()
    while piece := await reader.read(1 << 16):
        answer += piece
        if len(answer) > MAX_ANSWER_BYTES:
            raise Unavailable(f"{listen} answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def samples(text: str) -> tuple[Sample, ...]:
    """What `Metrics.render` has written. Raises Malformed."""
    found = []
    for line in text.split("\n"):  # labels may hold what `splitlines` takes for an end
        if line.startswith("#") or not line:
            continue
        match = _SAMPLE.match(line)
        if match is None:
            raise Malformed(f"not a line of metrics: {line[:80]!r}")
        labels = {name: _plain(value) for name, value in _LABEL.findall(match[2] or "")}
        try:
            found.append(Sample(match[1], labels, float(match[3])))
        except ValueError as error:
            raise Malformed(f"not a number: {match[3][:80]!r}") from error
    return tuple(found)


def _plain(value: str) -> str:
    return re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], value)
