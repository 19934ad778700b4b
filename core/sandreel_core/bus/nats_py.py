"""What the bus takes of nats-py. Everything of it is imported here, and without aiohttp.

nats-py imports aiohttp where it is installed, for WebSockets: half of the time that `import nats` takes, and 10 MB, in every
role and every `sandreel`. Nobody here speaks them. So a module stands in its place meanwhile that becomes the real one as
soon as anything of it is needed: a `ws://` address works as before, and nobody else sees it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_NAME = "aiohttp"


class _Later(ModuleType):
    """Stands for a module until it is needed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


# Not where somebody has made up their mind: it is imported, or `None`, "not installed".
if _ours := _NAME not in sys.modules:
    sys.modules[_NAME] = _Later(_NAME)
try:
    from nats import errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.protocol import parser
finally:
    if _ours:
        del sys.modules[_NAME]

__all__ = ["Client", "Msg", "Subscription", "errors", "parser"]
