"""Keys, one after the other: the next one is looked at when all that the last one led to is done.

Textual gives a key to the widget that has the focus, which gives what it does not take to its parent, and so on up to the
application, which looks for its binding; each has a queue of its own. Meanwhile the application gives away the keys that come
behind it, to whoever has the focus now: of a pasted `/web` the table gets all four, and only the first means anything there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from textual import events
from textual.dom import DOMNode

Typed: TypeAlias = events.Key | events.Paste

# Far more than anybody types ahead; what comes beyond them is told by the terminal's bell.
MAX_WAITING = 4096
# A widget that goes away with its queue never says that it is done.
_WITHIN_S = 0.5
# One way up for the key itself and what is bound to it; another for the message that this may have sent (open this row).
_ROUNDS = 2


class Keystrokes:
    """`give` lets Textual have a key; `focused` is who gets it."""

    def __init__(
        self,
        app: DOMNode,
        give: Callable[[Typed], Awaitable[None]],
        focused: Callable[[], DOMNode],
        ring: Callable[[], None],
    ) -> None:
        self._app = app
        self._give = give
        self._focused = focused
        self._ring = ring
        self._waiting: deque[Typed] = deque()
        self._under_way: asyncio.TimerHandle | None = None

    async def take(self, typed: Typed) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._ring()
            return
        self._waiting.append(typed)
        if self._under_way is None:
            await self._next()

    def forget(self) -> None:
        """What was typed ahead counts no more."""
        self._waiting.clear()

    async def _next(self) -> None:
        if not self._waiting:
            return
        target = self._focused()
        of = self._under_way = asyncio.get_running_loop().call_later(_WITHIN_S, self._give_up)
        await self._give(self._waiting.popleft())
        self._climb(target, target, _ROUNDS, of)

    def _climb(self, target: DOMNode, at: DOMNode, rounds: int, of: asyncio.TimerHandle) -> None:
        """Behind the key `of`, through the queues that it goes through."""

        async def arrived() -> None:
            if at is not self._app:
                self._climb(target, at.parent or self._app, rounds, of)
            elif rounds > 1:
                self._climb(target, target, rounds - 1, of)
            else:
                await self._done(of)

        if not at.call_later(arrived) and at is not self._app:  # it is closing
            self._climb(target, self._app, rounds, of)

    def _give_up(self) -> None:
        if self._under_way is not None:
            self._app.call_later(self._done, self._under_way)

    async def _done(self, of: asyncio.TimerHandle) -> None:
        if of is self._under_way:
            of.cancel()
            self._under_way = None
            await self._next()
