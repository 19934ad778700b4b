"""`sandreel top`: every session and exec on one live screen, each to be opened and scrubbed through.

Rooms: what is shown is a fold (`board`, `rate`, `behind`, `recording`: pure) that `watch` and `scrub` feed from the log;
`columns`, `order` and `header` (pure) say how it looks; `screen/` alone knows Textual, and draws.
"""

from sandreel_core.cli.top.command import add

__all__ = ["add"]
