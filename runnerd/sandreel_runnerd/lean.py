"""What a boot leaves for later. Imported by `__main__` before anything else: nearly all of a boot is imports
(docs/decisions/0019-a-lean-boot.md has the figures)."""

from __future__ import annotations

import gc
import importlib
import sys
from enum import StrEnum
from types import ModuleType
from typing import Any, cast


def postpone() -> None:
    """To be called once, before nats-py is imported, and only in a process that is runnerd's own.

    nats-py imports its JetStream client, which is a third of it, to make one when it is asked to, and for the names of
    three headers. Nobody here asks: `bus/jetstream*.py` speak the server's API themselves. Where aiohttp is
    installed, for the gateway, it is imported too, for WebSockets, which nobody here speaks: 10 MB. And what imports make
    stays, so that collecting garbage meanwhile finds none.
    """
    gc.disable()
    sys.modules["aiohttp"] = cast("ModuleType", None)  # "is not installed", to whoever imports it
    api = _Later("nats.js.api", Header=_Headers())
    later = sys.modules["nats.js"] = _Later("nats.js", api=api)
    vars(importlib.import_module("nats"))["js"] = later  # as importing it would have done


def imported() -> None:
    """To be called when everything is imported: what there is now is never looked at again by a collection."""
    gc.freeze()
    gc.enable()


class _Later(ModuleType):
    """Stands for a module until more of it is needed than is `known`."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name, "Imported as soon as anything else of it is asked for.")
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Header(StrEnum):
    """Those that nats-py looks for in every message with headers, as it has them: importing all of them in a session's first
    seconds kept an exec's lines for 50 ms."""

    STATUS = "Status"
    DESCRIPTION = "Description"
    CONSUMER_STALLED = "Nats-Consumer-Stalled"


class _Headers:
    def __getattr__(self, name: str) -> Any:
        return getattr(_Header, name, None) or getattr(importlib.import_module("nats.js.api").Header, name)
