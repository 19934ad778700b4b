"""Signs runnerds: the bootstrap user that a boot is started with, and the user that it then becomes (decision 0017)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from sandreel_core import jwt
from sandreel_core import permissions as p
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed
from sandreel_core.keys import Key, new_key

# nkeys: a version byte, 32 bytes and a checksum in base32. It becomes a token of a subject.
_PUBLIC = re.compile(r"U[A-Z2-7]{55}")
NATS_KEY, SEALING_KEY = "nats", "seal"


@dataclass(frozen=True, slots=True, repr=False)
class Issuer:
    """`key` is a signing key of the sessions' account, whose public key is `account`. An identity lasts `lasts_s`."""

    account: str
    key: Key
    lasts_s: float

    def bootstrap(self, subjects: SessionSubjects) -> str:
        """Credentials (the text of a .creds file) that may ask for an identity, and nothing else. They do not expire:
        whether the boot is over is asked at every use, and a runnerd that was cut off for long comes back with them."""
        key = new_key("user")
        user = p.BOOTSTRAP.at(org=subjects.org, session=subjects.session, key=key.public)
        return jwt.creds(self._sign(user, key.public, subjects, None), key.seed)

    def session(self, subjects: SessionSubjects, feed: str, public_keys: dict[str, str]) -> str:
        """A JWT for the boot's own key, which never left it. Raises Malformed when that is no user's key."""
        public = public_keys.get(NATS_KEY, "")
        if not _PUBLIC.fullmatch(public):
            raise Malformed(f"public_keys.{NATS_KEY} is not the public nkey of a user")
        user = p.SESSION.at(
            partition=str(subjects.partition), org=subjects.org, session=subjects.session, feed=feed, key=public
        )
        return self._sign(user, public, subjects, self.lasts_s)

    def _sign(self, user: p.User, public: str, subjects: SessionSubjects, lasts_s: float | None) -> str:
        now_s = int(time.time())
        claims = jwt.user(
            public,
            f"{user.name} {subjects.org}/{subjects.session}",
            account=self.account,
            publish=user.publish,
            subscribe=user.subscribe,
            responds=user.responds,
            expires_at_s=None if lasts_s is None else now_s + int(lasts_s),
            max_subscriptions=user.max_subscriptions or jwt.NO_LIMIT,
        )
        return jwt.encode(claims, issuer=self.key.public, issued_at_s=now_s, sign=self.key.sign)
