"""What a program has switched on a terminal, as its output told: so that it can be switched off again for the shell,
and on again for somebody who comes later. Pure.
"""

from __future__ import annotations

import re

# What a program may switch and not switch back before its viewer leaves: cursor keys, wrapping, cursor, the mouse and
# the focus, bracketed paste, the alternate screens (xterm's ctlseqs; the first two of `_ON` are so from the start).
_ON = frozenset({7, 25})
ALTERNATE = frozenset({47, 1047, 1049})
_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?(?P<modes>[0-9;]{1,64})(?P<set>[hl])|(?P<keypad>[=>])|(?P<reset>c)|\[(?P<soft>!p)"
    rb"|\[(?P<region>[0-9]{0,5}(?:;[0-9]{0,5})?)r|\[>(?P<kitty>[0-9]{0,4})u|\[<(?P<pop>[0-9]{0,4})u"
    rb"|\[>4(?:;(?P<other>[0-9]))?m|\[(?P<shape>[0-9]) q)"
)
# An unfinished sequence at the end of a block; none of ours is longer.
_UNFINISHED = re.compile(rb"\x1b(?:\[[?><!]?[0-9;]{0,64} ?)?\Z")


class Modes:
    """Fed with the output, in any chunking."""

    def __init__(self) -> None:
        self._rest = b""
        self._reset()

    def _reset(self) -> None:
        self.private: dict[int, bool] = {}  # mode → set or reset, where that is not as it was
        self.region = b""
        self._keypad = False
        self._kitty: list[bytes] = []
        self._other = b""
        self._shape = b""

    @property
    def alternate(self) -> bool:
        """Whether the program shows its alternate screen."""
        return any(self.private.get(mode) for mode in ALTERNATE)

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        for found in _SEQUENCE.finditer(data):
            self._take(found)
        unfinished = _UNFINISHED.search(data[-80:])
        self._rest = unfinished[0] if unfinished else b""

    def _take(self, found: re.Match[bytes]) -> None:
        match found.lastgroup:
            case "reset":
                self._reset()
            case "soft":
                self.region, self._keypad = b"", False
                for mode in (*_ON, 1):
                    self.private.pop(mode, None)
            case "set":
                for mode in (int(part) for part in found["modes"].split(b";") if part):
                    self._switch(mode, found["set"] == b"h")
            case "keypad":
                self._keypad = found["keypad"] == b"="
            case "region":
                self.region = found["region"].strip(b";")
            case "kitty":
                self._kitty = [*self._kitty[-7:], found["kitty"]]
            case "pop":
                self._kitty = self._kitty[: -int(found["pop"] or 1)]
            case "shape":
                self._shape = found["shape"] if found["shape"] != b"0" else b""
            case _:
                self._other = found["other"] or b""

    def _switch(self, mode: int, on: bool) -> None:
        if on == (mode in _ON):
            self.private.pop(mode, None)
        else:
            self.private[mode] = on

    def switch_on(self) -> bytes:
        """What brings another terminal to these, but for the alternate screen and the scrolling region."""
        out = [
            b"\x1b[?%d%c" % (mode, b"h" if on else b"l") for mode, on in self.private.items() if mode not in ALTERNATE
        ]
        out += [b"\x1b=" if self._keypad else b""]
        out += [b"\x1b[>%su" % flags for flags in self._kitty]
        out += [
            b"\x1b[>4;%sm" % self._other if self._other else b"",
            b"\x1b[%s q" % self._shape if self._shape else b"",
        ]
        return b"".join(out)

    def switch_off(self) -> bytes:
        """What brings the terminal back to what a shell expects."""
        # The kitty keyboard belongs to the screen that is shown, so it goes first.
        out = [b"\x1b[<%du" % len(self._kitty)] if self._kitty else []
        out += [b"\x1b[>4m"] if self._other else []
        out += [b"\x1b7\x1b[r\x1b8"] if self.region else []
        out += [b"\x1b[?%d%c" % (mode, b"l" if on else b"h") for mode, on in self.private.items()]
        out += [b"\x1b>"] if self._keypad else []
        out += [b"\x1b[0 q"] if self._shape else []
        return b"".join([*out, b"\x1b[4l\x1b[0m\x1b(B\x0f"])
