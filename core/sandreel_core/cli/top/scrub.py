"""The screen of an exec at any place of its history, read from the log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from sandreel_core.cli.top.recording import Mark, Recording, Target, is_behind
from sandreel_core.cli.top.transcript import Kind, Transcript
from sandreel_core.client import Client, Gap, Output
from sandreel_core.client.items import CaughtUp


@dataclass(frozen=True, slots=True)
class Page:
    """What stood on the screen at `mark`."""

    lines: Sequence[tuple[Kind, str]]
    mark: Mark


async def page(
    client: Client, place: tuple[str, str, str], recording: Recording, target: Target, height: int
) -> Page | None:
    """The last `height` lines up to the target, or to the nearest event; None where nothing is stored.

    `place` is (org, session, exec). One short read from the mark before it. Raises Unavailable, Malformed when the stream was
    restored meanwhile.
    """
    begin = recording.before(target, height)
    transcript = Transcript(max(1, height))
    at = begin
    items = client.follow(*place, after=begin.cursor if begin else None, live=False)
    async with aclosing(items):
        async for item in items:
            if isinstance(item, CaughtUp):
                break
            if isinstance(item, Gap):
                transcript.add(item)
                continue
            before = at.lines if at else 0
            lines = before + (item.count if isinstance(item, Output) else 0)
            if is_behind(target, item, lines) and at is not None:
                if target.axis == "line" and isinstance(item, Output) and target.value > before:
                    transcript.add(item, newlines=target.value - before)
                    at = Mark(item.n, item.cursor, item.stored_ns, target.value)
                break
            transcript.add(item)
            at = Mark(item.n, item.cursor, item.stored_ns, lines)
    return None if at is None else Page(transcript.lines(), at)
