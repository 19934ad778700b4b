"""A turn that is watched: shown until it ends, interrupted, and left running when nobody wants to look any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sandreel_core.cli.turn_screen import TurnScreen
from sandreel_core.cli.watching import watched
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
        gone = await watched(
            self._screen.show(items),
            interrupt=self._interrupt if interruptible else None,
            leave=self._say_how_to_return,
            left="left",
            beside=[self._screen.animate()] if self._screen.animated else [],
        )
        if gone is not None:
            return gone
        result = self._screen.result
        if result is None:
            return 0
        if result.status == "plan" and not self._screen.decided:
            name = f"{self._turn.id}{self._options}"
            await self._screen.say(
                f"to let it be carried out: sandreel approve --watch {name}, else: sandreel reject {name}"
            )
        return EXIT_CODES[result.status]

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
