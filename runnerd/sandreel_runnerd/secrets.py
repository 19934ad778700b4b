"""Values that an exec gets by reference: asked for as it starts, sealed on their way, kept nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.contract.exec import SecretRef
from sandreel_core.contract.secret import MAX_SECRET_BYTES, AskSecret, Secret
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.environment import is_admissible, is_denied
from sandreel_core.errors import Malformed, NotFound, Refused, SandreelError, Unavailable
from sandreel_core.keys import SealingKey
from sandreel_core.log import Log
from sandreel_runnerd.mask import MIN_VALUE_BYTES, Mask

# The broker appends `credential.leased` before it answers, and asks its vault.
_ANSWER_WITHIN_S = 10.0


class Secrets:
    """One for a runnerd. `sealing` is the key whose public half stands in `session.ready`; `mask` is told every value before
    anybody has it."""

    def __init__(
        self, bus: Bus, subjects: SessionSubjects, sealing: SealingKey, mask: Mask, log: Log, *, boot_id: str
    ) -> None:
        self._bus = bus
        self._boot_id = boot_id
        self._subjects = subjects
        self._sealing = sealing
        self._mask = mask
        self._log = log

    async def values(self, refs: Mapping[str, SecretRef], exec_id: str) -> dict[str, str]:
        """Every value, by the variable's name; all or none. Raises Refused(SECRET_UNAVAILABLE), which names the variable
        and the role and repeats nothing that the role has said: an answer may hold what it should not."""
        tasks = [asyncio.ensure_future(self._value(name, ref, exec_id)) for name, ref in refs.items()]
        try:
            return dict(zip(refs, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()

    async def _value(self, name: str, ref: SecretRef, exec_id: str) -> str:
        subject = self._subjects.request(ref.role, "secret")
        body = msgspec.json.encode(AskSecret(lease=ref.lease, exec=exec_id, boot_id=self._boot_id))
        try:
            answer = await self._bus.request(subject, body, timeout_s=_ANSWER_WITHIN_S)
            value = self._sealing.open(msgspec.json.decode(answer, type=Secret).sealed).decode()
        except NotFound:
            raise _refused(name, f"nobody serves secrets as {ref.role}") from None
        except Unavailable:
            raise _refused(name, f"the {ref.role} does not answer") from None
        except (Malformed, msgspec.DecodeError, UnicodeDecodeError):
            raise _refused(name, f"the answer of the {ref.role} is not a value sealed for this session") from None
        except SandreelError as error:
            code = f" ({error.code})" if isinstance(error, Refused) else ""
            raise _refused(name, f"the {ref.role} does not give it{code}") from None
        if not is_admissible(name, value):
            raise _refused(name, f"a variable cannot have it: no NUL, at most {MAX_SECRET_BYTES} bytes")
        try:
            # What the bridge gives is a turn's key, which ends with its turn.
            masked = self._mask.add(value.encode(), passing=ref.role == "bridge")
        except Refused as full:
            raise _refused(name, full.message) from None
        if not masked:
            self._log.warning(
                "a value is too short to be masked", exec=exec_id, variable=name, min_bytes=MIN_VALUE_BYTES
            )
        return value


def check_names(refs: Mapping[str, SecretRef], env: Mapping[str, str]) -> None:
    """Raises Refused(BAD_REQUEST) for a name that sandreel keeps, is no variable's, or is given twice."""
    for name in refs:
        if not name or "=" in name or "\0" in name or is_denied(name):
            raise Refused("BAD_REQUEST", f"secret_env: {name[:80]!r} is not a name that may be set")
        if name in env:
            raise Refused("BAD_REQUEST", f"secret_env and env both give {name[:80]}: give it once")


def _refused(name: str, why: str) -> Refused:
    return Refused("SECRET_UNAVAILABLE", f"{name[:80]}: {why}")
