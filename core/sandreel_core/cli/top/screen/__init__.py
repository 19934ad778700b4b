"""The screen itself: the only room that knows Textual. It draws what the rooms beside it have worked out."""

from __future__ import annotations

import asyncio
import logging
import os

from sandreel_core.cli.interrupts import Ending
from sandreel_core.cli.top.order import Filter, Order
from sandreel_core.cli.top.screen.app import Top
from sandreel_core.cli.top.watch import Watch
from sandreel_core.client import Client


async def show(client: Client, watch: Watch, order: Order, wanted: Filter) -> int:
    """Until the operator leaves or a signal ends it; the exit code. Raises what ended the reading."""
    for stale in ("COLUMNS", "LINES"):  # Textual would believe them, whatever the window's size becomes
        os.environ.pop(stale, None)
    app = Top(client, watch, order, wanted)
    ending = Ending()
    ending.arm()  # by default a signal would leave the terminal raw, and on the other screen
    logging.disable()  # its lines would stand across the screen, whose header says what matters
    try:
        await app.run_async()
    except asyncio.CancelledError:
        if ending.came is None:
            raise
    finally:
        logging.disable(logging.NOTSET)
    if app.failure is not None:
        raise app.failure
    return 0 if ending.came is None else 128 + ending.came
