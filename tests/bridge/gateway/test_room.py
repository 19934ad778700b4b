"""What requests may take of the gateway at one time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sandreel_bridge.gateway.room import Room
from sandreel_core.errors import Refused, Unavailable


def test_a_key_has_its_share_and_all_have_theirs_together() -> None:
    told: list[int] = []
    room = Room(calls=3, calls_of_key=2, bodies_bytes=100, tell=told.append)
    with ExitStack() as stack:
        for key in ("a", "a", "b"):
            stack.enter_context(room.taken(key, 1))
        with pytest.raises(Refused, match="TOO_MANY_CALLS"), room.taken("a", 1):
            pass
        with pytest.raises(Unavailable, match="3 calls are under way"), room.taken("b", 1):
            pass
    assert told == [1, 2, 3, 2, 1, 0]
    with room.taken("a", 1):  # what is over is free again
        assert told[-1] == 1


def test_what_came_in_pieces_holds_what_came_and_no_more() -> None:
    room = Room(calls=10, calls_of_key=10, bodies_bytes=100)
    with room.taken("a", 100) as came:
        with pytest.raises(Unavailable, match="in memory"), room.taken("b", 1):
            pass
        came(30)
        with room.taken("b", 70):
            with pytest.raises(Unavailable), room.taken("b", 1):
                pass
    with room.taken("a", 1000):  # larger than all, and alone
        pass
    with room.taken("a", 100):
        pass
