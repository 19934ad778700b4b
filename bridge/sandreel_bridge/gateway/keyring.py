"""The keys: minted, found by their value, ended; and what each has used. Changed in memory and in the store together.

There is one keyring an installation: budgets are counted in one place. A second gateway takes them over, and the first is told so
by `check_owner`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sandreel_bridge.gateway import account as accounts
from sandreel_bridge.gateway import months
from sandreel_bridge.gateway.account import Account, Key, Tally
from sandreel_bridge.gateway.daybook import Began, Ended, Entry, Sent, Step
from sandreel_bridge.gateway.meter import METER
from sandreel_bridge.gateway.orgs import Orgs
from sandreel_bridge.gateway.port import KeyStanding, KeyTerms
from sandreel_bridge.gateway.purse import Progress, Purse
from sandreel_bridge.gateway.recorder import Recorder
from sandreel_bridge.gateway.store import Store
from sandreel_bridge.gateway.users import Users, part_of
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.turn import Usage
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.errors import Conflict, Misconfigured, Refused, TooLarge, Unavailable
from sandreel_core.log import Log

# By which a key is told from a provider's when somebody finds one.
PREFIX = "srvk_"


class Keyring:
    """Of the gateway that has taken the keys (`Store.take`) as `boot_id`; `open` first. Its methods raise Unavailable when NATS does not answer; then nothing has changed that counts."""

    def __init__(
        self, store: Store, recorder: Recorder, orgs: Orgs, *, now: Callable[[], datetime], boot_id: str
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._orgs = orgs
        self._now = now
        self._boot_id = boot_id
        self._accounts: dict[str, Account] = {}
        self._users: dict[tuple[str, str], Users] = {}
        self._purses: dict[str, Purse] = {}
        self._by_sha256: dict[str, Purse] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._log = Log("gateway")

    def __len__(self) -> int:
        return len(self._purses)

    async def open(self, entries: Sequence[Entry] = ()) -> None:
        """Go on from what the last one left: its live keys, what it had written down of them (`entries`, see `daybook`), and the calls
        that were under way when it was killed. How those ended nobody knows: they are recorded as cut, and charged what they held."""
        written: defaultdict[tuple[str, datetime], list[Step]] = defaultdict(list)
        for entry in entries:
            if not isinstance(entry, Sent):
                written[entry.key, entry.since].append(entry)
        sent = {entry.call_id for entry in entries if isinstance(entry, Sent)}
        for entry in entries:
            if isinstance(entry, Ended) and entry.call_id not in sent:
                self._recorder.resume(entry)
        self._accounts, self._users, progress = await self._store.load()
        for account in self._accounts.values():
            for key in account.live():
                found = progress.pop(key.name, None)
                if found is None or found.since not in (None, key.created_at):
                    found = Progress(name=key.name, tally=Tally())
                self._take_up(at_last(key, found, written[key.name, key.created_at]), found)
        for name in progress:  # of keys that have ended: the account has their tally
            self._recorder.forget(name)

    def _take_up(self, purse: Purse, before: Progress) -> None:
        key = purse.key
        self._put(purse)
        if purse.step > before.step:
            self._recorder.note(purse)
        for call in list(purse.calls.values()):
            event = UsageRecorded(
                call_id=call.call_id,
                provider=call.provider,
                model=call.model,
                asked_model=call.model,
                usage=Usage(),
                meter=METER,
                turn=key.terms.turn,
                key=key.name,
                user=key.terms.user,
                complete=False,
                charged_micro_usd=call.held_micro_usd,
            )
            purse.settle(call.call_id, event)
            self._recorder.record(purse, event)
            self._log.warning("a call was under way when the gateway ended", call=call.call_id, key=key.name)

    async def check_owner(self) -> None:
        """Raises Misconfigured when another gateway has taken the keys over."""
        if await self._store.owner() != self._boot_id:
            raise Misconfigured("another gateway has taken the keys over: run one an installation")

    def find(self, value: str) -> Purse | None:
        """The live key of this value."""
        sha256 = digest(value)
        purse = self._by_sha256.get(sha256)
        # The look-up is by a hash that nobody can choose; the comparison takes as long for a near miss.
        if purse is None or not hmac.compare_digest(purse.key.sha256, sha256) or purse.expired(self._now()):
            return None
        return purse

    async def mint(self, name: str, terms: KeyTerms, value: str) -> KeyStanding:
        """From now on `value` is this key, and none that had its name before. Raises Refused."""
        models = self._orgs.models(terms.org)
        for model in terms.models:
            if model not in models:
                raise Refused("MODEL_NOT_ALLOWED", f"the org {terms.org} may use {', '.join(models)}; not {model}")
        if not terms.models:
            raise Refused("MODEL_NOT_ALLOWED", "a key needs a model that it may ask for")
        if terms.budget_micro_usd < 1:
            raise Refused("BAD_REQUEST", f"budget_micro_usd is {terms.budget_micro_usd}: a key needs one")
        now = self._now()
        if terms.expires_at <= now:
            raise Refused("BAD_REQUEST", f"expires_at is {terms.expires_at.isoformat()}, which has passed")
        async with self._locks[terms.org]:
            before = self._accounts.get(terms.org, Account())
            key = Key(name=name, sha256=digest(value), terms=terms, granted_micro_usd=0, created_at=now)
            user = terms.user
            after = accounts.minted(
                before,
                key,
                self._orgs.limits(terms.org),
                now,
                user_micro_usd=0 if user is None else self._users_of(terms.org, user).spent(user, now),
                max_bytes=self._store.max_bytes,
            )
            await self._save(terms.org, after)
            key = after.keys[name]
            purse = self._purses.get(name)
            if purse is None:
                purse = Purse(key, Tally())
            else:
                self._by_sha256.pop(purse.key.sha256, None)
                purse.become(key)
            self._put(purse)
        self._recorder.note(purse)
        return key.standing(purse.tally)

    async def end(self, org: str, name: str, *, within_s: float) -> KeyStanding | None:
        """Refuse it from now on, also to calls that wait or are still being sent; wait for those that are under way, cutting
        them after `within_s`, and until all are in the log; settle its budget. Idempotent."""
        purse = self._purses.get(name)
        if purse is None:
            return self.standing(org, name)
        key = purse.key
        self._by_sha256.pop(key.sha256, None)
        purse.close()
        if not await purse.quiet(within_s):
            purse.cut()
            if not await purse.quiet(within_s):
                raise Unavailable(f"calls of the key {name} do not end: nothing is settled yet")
        if not await self._recorder.recorded(name, within_s):
            raise Unavailable(f"what the key {name} used is not in the log yet: NATS does not take it")
        async with self._locks[org]:
            if self._purses.get(name) is purse and purse.key is key:
                account, now = self._accounts.get(org, Account()), self._now()
                await self._charge_user(account, purse, now)
                await self._save(org, accounts.ended(account, name, purse.tally, now, max_bytes=self._store.max_bytes))
                del self._purses[name]
                self._recorder.forget(name)
        return self.standing(org, name)

    def standing(self, org: str, name: str) -> KeyStanding | None:
        purse = self._purses.get(name)
        if purse is not None:
            return purse.key.standing(purse.tally)
        key = self._accounts.get(org, Account()).keys.get(name)
        return None if key is None else key.standing(key.tally)

    def live(self) -> Iterator[KeyStanding]:
        return (purse.key.standing(purse.tally) for purse in self._purses.values())

    def expired(self) -> list[tuple[str, str]]:
        """(org, name) of the keys that nobody has ended in time."""
        now = self._now()
        return [(purse.key.terms.org, name) for name, purse in self._purses.items() if purse.expired(now)]

    def is_ahead(self) -> bool:
        """Whether keys were charged in a month that is still to come, by a clock that was ahead or is behind now."""
        present = months.month_of(self._now())
        return any(month > present for account in self._accounts.values() for month in account.spent_micro_usd)

    def _put(self, purse: Purse) -> None:
        self._purses[purse.key.name] = purse
        self._by_sha256[purse.key.sha256] = purse

    def _users_of(self, org: str, user: str) -> Users:
        return self._users.get((org, part_of(user)), Users())

    async def _charge_user(self, account: Account, purse: Purse, now: datetime) -> None:
        key, user = purse.key, purse.key.terms.user
        if user is None:
            return
        org, part = key.terms.org, part_of(user)
        before, live = self._users_of(org, user), {each.name for each in account.live()}
        after = before.plus(user, key, purse.tally.charged_micro_usd, now, live)
        if after is not before:
            with _written(org):
                await self._store.save_users(org, part, after)
            self._users[org, part] = after

    async def _save(self, org: str, account: Account) -> None:
        with _written(org):
            await self._store.save_account(org, account)
        self._accounts[org] = account


@contextmanager
def _written(org: str) -> Iterator[None]:
    """What keeps a document from being written is Unavailable to whoever waits for it."""
    try:
        yield
    except Conflict as error:
        raise Unavailable(f"another gateway has changed the account of {org}: run one an installation") from error
    except TooLarge as error:
        raise Unavailable(f"the account of {org} is longer than NATS takes: {error}", retry_after_s=30) from error


def at_last(key: Key, progress: Progress, entries: Sequence[Step]) -> Purse:
    """The key's purse as `progress` has it, and with every step that the entries of it have beyond that. Pure."""
    purse = Purse(key, progress.tally)
    for call in progress.calls:
        purse.take(call)
    purse.step = progress.step
    for entry in entries:
        if entry.step <= purse.step:
            continue
        if isinstance(entry, Began):
            purse.take(entry.call)
        else:
            purse.settle(entry.call_id, _usage(entry) if isinstance(entry, Ended) else None)
        purse.step = entry.step
    return purse


def _usage(ended: Ended) -> UsageRecorded | None:
    data = decode_event(ended.subject, bytes(ended.event)).data
    return data if isinstance(data, UsageRecorded) else None


def digest(value: str) -> str:
    """Of what a header said, which may be no UTF-8: then no key has it."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
