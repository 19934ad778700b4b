"""Dead letters (design §3): which commands become one, and how it is kept."""

from __future__ import annotations

from collections import OrderedDict

from sandreel_core.bus.port import Bus, Stored
from sandreel_core.errors import AlreadyExists, Full, SandreelError, Unavailable
from sandreel_core.log import Log

MAX_FAILURES = 5  # design §3: five failed deliveries
# More than a consumer hands out unacknowledged (`Work.max_ack_pending`): none under way is forgotten.
_REMEMBERED = 512


class Tally:
    """How often something befell each command in this process, by its sequence; of the latest 512."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()

    def __getitem__(self, sequence: int) -> int:
        return self._counts.get(sequence, 0)

    def add(self, sequence: int) -> int:
        """The count with this one."""
        count = self._counts.pop(sequence, 0) + 1
        self._counts[sequence] = count
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        return count

    def forget(self, sequence: int) -> None:
        self._counts.pop(sequence, None)


async def bury(bus: Bus, stored: Stored, log: Log) -> bool:
    """Keep a command under `dead.`; whether it was kept now. That it is there already is well. Raises Unavailable."""
    try:
        await bus.append("dead." + stored.subject.partition(".")[2], stored.body)
        return True
    except AlreadyExists:
        return False
    except Full:
        log.error("no room for a dead letter; it is in CMD for as long as CMD keeps it", subject=stored.subject)
    except SandreelError as error:
        if isinstance(error, Unavailable):
            raise
        log.error("a dead letter cannot be kept", subject=stored.subject, problem=str(error))
    return False
