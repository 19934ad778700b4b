"""What somebody in a session might get hold of, made as the spawner and runnerd make it, and used in there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandreel_core import jwt
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.session import Ready
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.keys import new_key
from sandreel_core.spawner.backend import Key as Name
from sandreel_core.spawner.bootstrap import feed_of, token_of
from tests.support import intruder
from tests.support.system import ORG, STREAM, Site
from tests.support.system_users import issuer_of

BOOT = "1-1"


class Hands:
    """Of a session's first boot."""

    def __init__(self, site: Site, session: str) -> None:
        self.issuer = issuer_of(site.stack)
        self.subjects = SessionSubjects(ORG, session)
        key, name = (site.stack.place.state / "installation.key").read_text().strip().encode(), Name(ORG, session)
        self.token, self.feed = token_of(key, name, BOOT), feed_of(key, name, BOOT)
        self._site = site

    def session_creds(self) -> str:
        """A runnerd's own identity, with its private key."""
        key = new_key("user")
        return jwt.creds(self.issuer.session(self.subjects, self.feed, {"nats": key.public}), key.seed)

    def bootstrap_creds(self) -> str:
        """What the boot was started with, beside the token."""
        return self.issuer.bootstrap(self.subjects)

    async def public_keys(self) -> dict[str, str]:
        stored = await self._site.client.bus.last(STREAM, self.subjects.event("session"))
        assert stored is not None
        ready = decode_event(stored.subject, stored.body).data
        assert isinstance(ready, Ready)
        return ready.public_keys

    async def act(self, creds: str | None, acts: Sequence[Sequence[str]]) -> dict[str, Any]:
        """What `intruder` made of it, in a process of this session."""
        assert intruder.__file__
        name = "" if creds is None else jwt.claims_of(jwt.parse_creds(creds)[0])["sub"]
        order = {"url": "nats://nats:4222", "creds": creds, "inbox": name, "acts": acts}
        program = ["/opt/sandreel/bin/python", "-Ic", Path(intruder.__file__).read_text()]
        result = await self._site.client.run(ORG, self.subjects.session, program, stdin=json.dumps(order))
        assert result.exit_code == 0, result.stderr.decode()
        found: dict[str, Any] = json.loads(result.stdout)
        return found
