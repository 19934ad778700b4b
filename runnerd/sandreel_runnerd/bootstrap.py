"""The first thing that a boot does: present itself to the spawner, until it is answered."""

from __future__ import annotations

import asyncio

import msgspec

from sandreel_core import __version__
from sandreel_core.bus.port import Bus
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.bootstrap import Bootstrap, Bootstrapped
from sandreel_core.contract.catalog import CONTRACT_VERSION
from sandreel_core.contract.session import WORKSPACE
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import NotFound, Over, SandreelError, Unavailable
from sandreel_core.log import Log

_FIRST_RETRY_S = 0.05
_MAX_RETRY_S = 5.0
# The spawner appends `session.ready` before it answers.
_ANSWER_WITHIN_S = 10.0


async def present(
    bus: Bus, settings: BootSettings, log: Log, public_keys: dict[str, str], workspace: str
) -> Bootstrapped:
    """The spawner's answer: `session.ready` is in the log, and the token is bound to `public_keys`. Raises Over when this
    boot may not be, or is over."""
    request = Bootstrap(
        boot_id=settings.boot_id,
        token=settings.token,
        runnerd_version=__version__,
        contract_version=CONTRACT_VERSION,
        public_keys=public_keys,
        workspace=workspace if workspace != WORKSPACE else None,
    )
    body = msgspec.json.encode(request)
    subject = SessionSubjects(settings.org, settings.session, settings.partitions).request("spawner", "bootstrap")
    delay_s = _FIRST_RETRY_S
    while True:
        try:
            answer = await bus.request(subject, body, timeout_s=_ANSWER_WITHIN_S)
            return msgspec.json.decode(answer, type=Bootstrapped)
        except (Unavailable, NotFound) as error:
            log.info("no bootstrap yet", problem=str(error))
        except Over:
            raise
        except (SandreelError, msgspec.DecodeError) as error:
            log.error("bootstrap refused", problem=str(error))
        await bus.wait_connected()
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, _MAX_RETRY_S)
