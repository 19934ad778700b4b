"""A turn that is watched: shown until it ends, interrupted, and left running when nobody wants to look any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from sandreel_core.cli.entry import BROKEN_PIPE, INTERRUPTED, OPERATOR_ERROR
from sandreel_core.cli.interrupts import on_interrupt
from sandreel_core.cli.turn_screen import TurnScreen
from sandreel_core.client.turn_handle import TurnHandle
from sandreel_core.client.turn_items import TurnItem
from sandreel_core.contract.turn import TurnStatus
from sandreel_core.errors import SandreelError

# 2 and 130 are sandreel's own, as of every command.
EXIT_CODES: dict[TurnStatus, int] = {
    "success": 0,
    "plan": 0,
    "failed": 1,
    "max_turns": 3,
    "interrupted": 4,
    "cancelled": 5,
}


class TurnWatch:
    """`options`: those that lead to the same installation and org, for the sentences that tell how to come back."""

    def __init__(self, turn: TurnHandle, screen: TurnScreen, *, options: str = "") -> None:
        self._turn = turn
        self._screen = screen
        self._options = options

    async def watch(self, items: AsyncGenerator[TurnItem, None], *, interruptible: bool) -> int:
        """Show it until it ends; the exit code, 0 for one that has not ended where nothing more was asked for. Of two
        Ctrl-C the first interrupts the turn if it is `interruptible`; else already the first one leaves it."""
        async with asyncio.TaskGroup() as group:
            viewer = group.create_task(self._view(items))
            animation = group.create_task(self._screen.animate()) if self._screen.animated else None
            errands: set[asyncio.Task[None]] = set()

            def pressed(count: int) -> None:
                if count == 1 and interruptible:
                    errands.add(group.create_task(self._interrupt()))
                else:
                    viewer.cancel()

            with on_interrupt(pressed):
                await asyncio.wait([viewer])
            for task in (animation, *errands):
                if task is not None:
                    task.cancel()
        if viewer.cancelled():
            await self._say_how_to_return("left")
            return INTERRUPTED
        if (problem := viewer.result()) is not None:
            left = isinstance(problem, BrokenPipeError)
            why = "the reader of the output has left" if left else f"the output cannot be written ({problem.strerror})"
            await self._say_how_to_return(why)
            return BROKEN_PIPE if left else OPERATOR_ERROR
        result = self._screen.result
        if result is None:
            return 0
        if result.status == "plan" and not self._screen.decided:
            name = f"{self._turn.id}{self._options}"
            await self._screen.say(f"to let it be carried out: sandreel approve {name}, else: sandreel reject {name}")
        return EXIT_CODES[result.status]

    async def _view(self, items: AsyncGenerator[TurnItem, None]) -> OSError | None:
        """Why our output goes nowhere any more (its reader has left, the disk is full); None: it was all written."""
        try:
            await self._screen.show(items)
        except OSError as error:
            return error
        return None

    async def _interrupt(self) -> None:
        await self._screen.say("interrupting the turn; press Ctrl-C again to leave it running")
        try:
            await self._turn.interrupt()
        except SandreelError as error:
            await self._screen.say(f"the turn was not interrupted: {error}")

    async def _say_how_to_return(self, what: str) -> None:
        back = f"sandreel turn show {self._turn.id}{self._options} --after {self._screen.cursor}"
        goes_on = "the turn goes on" if self._screen.result is None else "the turn has ended"
        try:
            await self._screen.say(f"{what}; {goes_on}: {back}")
        except OSError:
            return  # stderr is gone as well
