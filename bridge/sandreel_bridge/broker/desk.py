"""Answers what sessions ask over `req.broker.<org>.<session>`: a lease for one operation, a value for one exec.

The order of things: the grant is looked at, the vault is read (and writes that down), `credential.leased` is appended on the
state that shows the grant, and only then does the value leave, sealed for the key that `session.ready` named.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TypeVar

import msgspec

from sandreel_bridge.broker import lease as rules
from sandreel_bridge.broker import recipe
from sandreel_bridge.broker.choice import Choice
from sandreel_bridge.broker.journal import Journal
from sandreel_bridge.broker.measures import BrokerMeasures
from sandreel_bridge.broker.minting import Minting
from sandreel_bridge.broker.pace import LEASES_BURST, LEASES_PER_S, Bucket, Sayings
from sandreel_bridge.broker.standing import Key, Stand, Standing
from sandreel_bridge.broker.tokens import Place
from sandreel_bridge.broker.turns import Turns
from sandreel_bridge.broker.vault import Name, Opened, Reader, Unreadable, Vault
from sandreel_bridge.broker.watch import VaultWatch
from sandreel_core.bus.port import Bus
from sandreel_core.clock import new_token, now
from sandreel_core.contract import credential as c
from sandreel_core.contract.lease import AskGit, AskLease, Lease
from sandreel_core.contract.requests import Request
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.contract.subjects import parse_request_subject
from sandreel_core.errors import Malformed, NotFound, Refused, SandreelError, Unavailable
from sandreel_core.health import Health
from sandreel_core.keys import seal
from sandreel_core.log import Log
from sandreel_core.session import Session

T = TypeVar("T", bound=Request)
_GROUP = "broker"
# Less than runnerd waits (`sandreel_runnerd.secrets`), so that it hears why.
GIVE_S = 9.0
# About the session and not about a credential of it: nothing to say in the credential's record.
_UNSAID = frozenset({"SESSION_NOT_READY", "BOOT_OVER", "NO_KEY", "TOO_OFTEN"})


class _Given(msgspec.Struct, frozen=True):
    """A lease that is in the log, and its value, sealed."""

    event: c.Leased
    use: recipe.Use
    sealed: str


class Desk:
    """One for a broker; the brokers of an installation share the questions."""

    def __init__(
        self,
        bus: Bus,
        standing: Standing,
        journal: Journal,
        vault: Vault,
        minting: Minting,
        turns: Turns,
        *,
        source: str,
        lease_s: float,
        give_s: float,
        measures: BrokerMeasures,
        health: Health,
    ) -> None:
        self._bus = bus
        self._standing = standing
        self._journal = journal
        self._vault = vault
        self._minting = minting
        self._watch = VaultWatch(measures, health)
        self._turns = turns
        self._choice = Choice(standing, vault, turns, self._watch)
        self._source = source
        self._lease_s = lease_s
        self._give_s = give_s
        self._measures = measures
        self._pace = Bucket(LEASES_BURST, LEASES_PER_S)
        self._sayings = Sayings()
        self._log = Log("broker.desk")

    async def open(self, stack: AsyncExitStack) -> None:
        """Serve until the stack is closed."""
        for verb, handler in (("lease", self._lease), ("secret", self._secret)):
            await stack.enter_async_context(self._bus.serve(f"req.broker.*.*.{verb}", handler, group=_GROUP))

    async def _lease(self, subject: str, body: bytes) -> bytes:
        ask = _decoded(body, AskLease)
        what = ask.git if ask.slug is None else ask.slug
        if what is None or (ask.slug is not None and ask.git is not None):
            raise Malformed("give exactly one of slug and git")
        asker = rules.Asker(
            exec=ask.exec,
            boot_id=ask.boot_id,
            pid=ask.pid,
            program=ask.program,
            purpose=ask.purpose or _purpose(ask.git),
        )
        given = await self._timed(_key(subject), what, asker, ask.resource)
        event, use = given.event, given.use
        return msgspec.json.encode(
            Lease(
                lease_id=event.lease_id,
                slug=event.slug,
                expires_at=event.expires_at,
                sealed=given.sealed,
                username=use.username,
                variables=list(use.variables),
                file_variable=use.file_variable,
                file_name=use.file_name,
                minted=event.minted,
            )
        )

    async def _secret(self, subject: str, body: bytes) -> bytes:
        ask = _decoded(body, AskSecret)
        asker = rules.Asker(exec=ask.exec, boot_id=ask.boot_id, purpose="a variable of the exec", injected=True)
        given = await self._timed(_key(subject), ask.lease, asker, None)
        return msgspec.json.encode(Secret(sealed=given.sealed))

    async def _timed(self, key: Key, what: str | AskGit, asker: rules.Asker, resource: str | None) -> _Given:
        """Raises Refused, NotFound (no credential is for that place), Unavailable."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._give_s):
                given = await self._give(key, what, asker, resource, began)
        except TimeoutError:
            self._measures.refused("UNAVAILABLE")
            raise Unavailable("the lease took too long") from None
        except Unavailable:
            self._measures.refused("UNAVAILABLE")
            raise
        except Refused as refused:
            self._measures.refused(refused.code)
            if isinstance(what, str) and refused.code not in _UNSAID:
                await self._say_refused(key, what, refused, asker, began)
            raise
        self._measures.leased(clock() - began)
        return given

    async def _give(
        self, key: Key, what: str | AskGit, asker: rules.Asker, resource: str | None, at_s: float
    ) -> _Given:
        if not self._pace.take(key, at_s):
            raise Refused("TOO_OFTEN", f"more than {LEASES_BURST:g} leases at once, or {LEASES_PER_S:g} a second")
        session = await self._session(key, asker.boot_id)
        slug, turn = await self._choice.of(key, what, asker.exec)
        if isinstance(what, AskGit):
            resource = resource or _repository(what)
        lease_id = new_token("l-")
        opened = await self._read(Name(key.org, slug), key, lease_id, asker.purpose)
        try:
            use = recipe.use_of(opened.entry.recipe, opened.entry.options, slug)
            value, fingerprint, until, minted = opened.value, opened.entry.fingerprint, None, None
            if use.mints:
                place = Place(lease=lease_id, name=opened.entry.name, session=key.session)
                minted = await self._minting.mint(place, opened, resource)
                value, until = minted.token.encode(), minted.expires_at
                fingerprint = await self._vault.fingerprint(key.org, value)
            sealed = seal(session.public_keys["seal"], value)
        except Malformed as error:
            raise Refused("CREDENTIAL_UNUSABLE", str(error)) from None

        def choose(stand: Stand) -> c.Leased:
            # Once more, on the state that the append expects: a revocation that came first is in it.
            at = now()
            turn = rules.grant_for(stand.credentials, slug, asker.exec, at)
            ends_at = rules.ends_at(
                stand.credentials, session, slug, turn, at, injected=asker.injected, lease_s=self._lease_s
            )
            return c.Leased(
                slug=slug,
                lease_id=lease_id,
                fingerprint=fingerprint,
                purpose=asker.purpose,
                expires_at=ends_at if until is None else min(ends_at, until),
                version=opened.entry.version,
                turn=turn or None,
                exec=asker.exec,
                pid=asker.pid,
                program=asker.program,
                injected=asker.injected,
                minted=minted is not None,
                resource=minted.resource[:256] or None if minted is not None else None,
            )

        try:
            # Vault and issuer may have taken seconds, and the end of a turn stands on another subject.
            await self._turns.check(key, turn)
            event = await self._journal.decide(key, choose, correlation=turn or None)
        except BaseException:
            if minted is not None:
                await asyncio.shield(self._minting.end([lease_id]))
            raise
        assert event is not None  # noqa: S101 - `choose` gives one
        return _Given(event, use, sealed)

    async def _session(self, key: Key, boot_id: str | None) -> Session:
        """One that runs, in this boot. Raises Refused."""
        session = self._standing.get(key).session
        try:
            rules.check_session(session, boot_id)
        except Refused:
            session = await self._standing.session(key)  # it may just have become ready
            rules.check_session(session, boot_id)
        return session

    async def _read(self, name: Name, key: Key, lease_id: str, purpose: str) -> Opened:
        """Raises Refused, Unavailable."""
        reader = Reader(by=self._source, session=key.session, lease=lease_id, purpose=purpose)
        try:
            return await self._watch.over(self._vault.read(name, reader))
        except NotFound:
            raise Refused("CREDENTIAL_NOT_FOUND", f"the vault holds no {name.slug}") from None
        except Unreadable as error:
            self._log.error("a credential cannot be opened", org=name.org, slug=name.slug, problem=str(error))
            raise Refused("CREDENTIAL_UNREADABLE", f"the vault cannot open {name.slug}: its log says why") from None

    async def _say_refused(self, key: Key, slug: str, refused: Refused, asker: rules.Asker, at_s: float) -> None:
        unsaid = self._sayings.due(key, (slug, refused.code), at_s)
        if unsaid is None:
            return
        event = c.LeaseRefused(
            slug=slug,
            code=refused.code,
            message=refused.message,
            purpose=asker.purpose,
            exec=asker.exec,
            pid=asker.pid,
            program=asker.program,
            unsaid=unsaid,
        )
        try:
            await self._journal.decide(key, lambda _: event)
        except SandreelError as error:
            self._log.warning("a refusal is not in the log", session=str(key), problem=str(error))


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the request is not in order: {error}") from error


def _key(subject: str) -> Key:
    _, org, session, _ = parse_request_subject(subject)
    return Key(org, session)


def _purpose(git: AskGit | None) -> str:
    return "" if git is None else f"git {git.protocol}://{git.host}/{git.path}"[:256]


def _repository(git: AskGit) -> str | None:
    """`owner/name`, where git has said which."""
    path = git.path.strip("/").removesuffix(".git")
    return path or None
