"""Requests of runnerd: bootstrap, renew, feed, log (design §3 and §5).

The token is a keyed hash over the boot, stored nowhere. It binds to the first public keys that come with it,
because those are written into `session.ready`: whoever else presents it is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TypeVar

import msgspec

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus
from sandreel_core.contract.bootstrap import (
    AskLog,
    Bootstrap,
    Bootstrapped,
    FeedMade,
    LogHead,
    MakeFeed,
    Renew,
    Renewed,
)
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Event
from sandreel_core.contract.requests import Reply, Request
from sandreel_core.contract.session import Ready
from sandreel_core.contract.subjects import CMD, parse_request_subject
from sandreel_core.environment import evolve
from sandreel_core.errors import Denied, Malformed, Over, Unavailable
from sandreel_core.log import Log
from sandreel_core.session import RUNNING, Session
from sandreel_core.spawner.backend import Key, boot_id_of
from sandreel_core.spawner.heads import Heads
from sandreel_core.spawner.issuer import Issuer
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sessions import Record, Sessions

# runnerd asks before `session.provisioned` is stored when it is quicker than we are.
PROVISION_TIMEOUT_S = 4.0
# Questions of one session that are answered at once: of a verb 64 are in all, whoever asks (`Bus.serve`), and a recorder that is
# told to come again does.
MAX_OF_ONE = 4
Holding = Callable[[int], bool]
_R = TypeVar("_R", bound=Request)


def token_of(installation_key: bytes, key: Key, boot_id: str) -> str:
    """What proves that somebody was started as this boot."""
    text = f"runnerd-v1:{key.org}/{key.session}/{boot_id}"
    return hmac.new(installation_key, text.encode(), hashlib.sha256).hexdigest()


def feed_of(installation_key: bytes, key: Key, boot_id: str) -> str:
    """The name of a boot's command feed, which nobody else can guess: whoever follows a log may pull from any consumer
    whose name it knows (`permissions.FOLLOW`)."""
    text = f"feed-v1:{key.org}/{key.session}/{boot_id}"
    return "run-" + hmac.new(installation_key, text.encode(), hashlib.sha256).hexdigest()[:32]


class Desk:
    """Answers runnerds."""

    def __init__(
        self,
        bus: Bus,
        journal: Journal,
        sessions: Sessions,
        heads: Heads,
        *,
        key: bytes,
        partitions: int,
        holding: Holding,
        issuer: Issuer | None = None,
    ) -> None:
        """issuer: signs runnerds, where NATS knows its users by JWTs."""
        self._bus = bus
        self._journal = journal
        self._sessions = sessions
        self._heads = heads
        self._key = key
        self._partitions = partitions
        self._holding = holding
        self._issuer = issuer
        self._asking: Counter[Key] = Counter()
        self._log = Log("spawner.bootstrap")

    async def open(self, stack: AsyncExitStack) -> None:
        """Serve until the stack is closed."""
        verbs = {"bootstrap": self._bootstrap, "renew": self._renew, "feed": self._feed, "log": self._ask_log}
        for verb, handler in verbs.items():
            await stack.enter_async_context(
                self._bus.serve(f"req.spawner.*.*.{verb}", self._serve(handler), group="spawner")
            )

    def _serve(self, handler: Callable[[Key, bytes], Awaitable[Reply]]) -> Callable[[str, bytes], Awaitable[bytes]]:
        async def serve(subject: str, body: bytes) -> bytes:
            _, org, session, _ = parse_request_subject(subject)
            with self._one_of_few(key := Key(org, session)):
                return msgspec.json.encode(await handler(key, body))

        return serve

    @contextmanager
    def _one_of_few(self, key: Key) -> Iterator[None]:
        """Raises Unavailable."""
        if self._asking[key] >= MAX_OF_ONE:
            raise Unavailable(f"{MAX_OF_ONE} questions of this session are not answered yet", retry_after_s=0.2)
        self._asking[key] += 1
        try:
            yield
        finally:
            self._asking[key] -= 1
            if not self._asking[key]:
                del self._asking[key]

    async def _bootstrap(self, key: Key, body: bytes) -> Reply:
        asked = _decode(body, Bootstrap)
        self._check_token(key, asked)
        # Before anything is written: a boot that cannot be anybody is not ready.
        user_jwt = self._sign(key, asked)

        def choose(record: Record, _: frozenset[str]) -> Event | None:
            session = record.session
            _check(session, asked.boot_id)
            if session.phase in RUNNING:
                if session.public_keys != asked.public_keys:
                    raise Over("the token is bound to other keys")
                return None
            if session.phase in ("stopping", "destroying"):
                raise Over(f"the session is {session.phase}")
            if session.phase != "provisioning":
                raise Unavailable("the session is not provisioned yet", retry_after_s=0.2)
            return Ready(
                boot_id=asked.boot_id,
                runnerd_version=asked.runnerd_version,
                contract_version=asked.contract_version,
                public_keys=asked.public_keys,
                workspace=asked.workspace,
            )

        limit = time.monotonic() + PROVISION_TIMEOUT_S
        while True:
            try:
                await self._journal.decide(key, choose)
                break
            except Unavailable:
                left = limit - time.monotonic()
                if left <= 0 or not await self._sessions.until(key, lambda now: now.phase == "provisioning", left):
                    raise
        record, _, _ = await self._journal.load(key)
        session = _check(record.session, asked.boot_id)
        subjects = self._journal.subjects(key)
        env, workspace_last = await self._workspace(key)
        return Bootstrapped(
            epoch=(await self._bus.state(subjects.stream)).epoch,
            partitions=self._partitions,
            env=env,
            limits=session.limits,
            commands_after=session.commands_after or 0,
            feed=await self._make_feed(key, asked.boot_id, session.commands_after or 0),
            hold=self._holding(subjects.partition),
            workspace_last=workspace_last,
            user_jwt=user_jwt,
        )

    async def _renew(self, key: Key, body: bytes) -> Reply:
        asked = _decode(body, Renew)
        self._check_token(key, asked)
        record, _, _ = await self._journal.load(key)
        session = _check(record.session, asked.boot_id)
        if session.boot_id != asked.boot_id or not session.public_keys:
            raise Unavailable("this boot is not ready yet: it has to ask for its bootstrap")
        if session.public_keys != asked.public_keys:
            raise Over("the token is bound to other keys")
        token = self._sign(key, asked)
        if token is None:
            raise Denied("this installation's NATS knows no JWTs")
        return Renewed(user_jwt=token)

    def _check_token(self, key: Key, asked: Bootstrap | Renew) -> None:
        if not hmac.compare_digest(asked.token.encode(), token_of(self._key, key, asked.boot_id).encode()):
            self._log.warning("a bootstrap token was wrong", session=str(key), boot=asked.boot_id[:80])
            raise Over("the token is not this boot's")

    def _sign(self, key: Key, asked: Bootstrap | Renew) -> str | None:
        if self._issuer is None:
            return None
        return self._issuer.session(
            self._journal.subjects(key), feed_of(self._key, key, asked.boot_id), asked.public_keys
        )

    async def _feed(self, key: Key, body: bytes) -> Reply:
        asked = _decode(body, MakeFeed)
        record, _, _ = await self._journal.load(key)
        session = _check(record.session, asked.boot_id)
        return FeedMade(feed=await self._make_feed(key, asked.boot_id, max(asked.after, session.commands_after or 0)))

    async def _make_feed(self, key: Key, boot_id: str, after: int) -> str:
        name = feed_of(self._key, key, boot_id)
        await self._bus.make_feed(CMD, name, [self._journal.subjects(key).commands("runnerd")], after=after)
        return name

    async def _ask_log(self, key: Key, body: bytes) -> Reply:
        asked = _decode(body, AskLog)
        subjects = self._journal.subjects(key)
        execs = {exec_id: (await self._heads.read(subjects, exec_id)).public() for exec_id in asked.execs}
        state = await self._bus.state(subjects.stream)
        commands = await self._bus.state(CMD)
        # Read last: a boot that is over must not take heart from what we have just read.
        record, _, _ = await self._journal.load(key)
        _check(record.session, asked.boot_id)
        return LogHead(
            epoch=state.epoch,
            commands_last=commands.last_sequence,
            commands_restored_at=commands.restored_at if commands.epoch == state.epoch else None,
            execs=execs,
        )

    async def _workspace(self, key: Key) -> tuple[dict[str, str], int]:
        """The session's variables, with every patch since this incarnation began, and the last sequence of the
        subject on which patches stand."""
        subjects = self._journal.subjects(key)
        env: dict[str, str] = {}
        last = 0
        filters = [subjects.event("session"), subjects.event("workspace")]
        async with kept(self._bus, subjects.stream, filters) as messages:
            async for stored in messages:
                if stored.subject == subjects.event("workspace"):
                    last = stored.sequence
                try:
                    data = decode_event(stored.subject, stored.body).data
                except Malformed:
                    continue
                env = evolve(env, data)
        return env, last


def _check(session: Session, boot_id: str) -> Session:
    """Raises Over when the boot is over. One that is being stopped is not: its execs still have to end."""
    if session.phase in ("requested", "resuming") and boot_id == boot_id_of(session.incarnation, session.boot):
        return session
    if session.commands_after is None or session.boot_id != boot_id:
        raise Over(f"boot {boot_id[:80]} is over")
    return session


def _decode(body: bytes, type: type[_R]) -> _R:
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.DecodeError as error:
        raise Malformed(f"the request is not in order: {error}") from error
