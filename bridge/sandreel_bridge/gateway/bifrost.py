"""The port over Bifrost, whose management API is asked as an administrator (v1.5, and what v1.4 has of it).

Written against its documented shapes and tested against a double of them; it was not run against a real one. What Bifrost does not
have: tokens by key (a standing has its cost alone), records of calls in our log, and keys that expire by themselves (the orphan
scan ends them).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from msgspec import Struct

from sandreel_bridge.gateway.port import Dialect, KeyStanding, KeyTerms, VirtualKey
from sandreel_core.contract.turn import Usage
from sandreel_core.errors import NotFound, Refused, Unavailable

_TIMEOUT_S = 15.0  # behaviour §4.8
_KEYS = "/api/governance/virtual-keys"
_PAGE = 100
# What is taken of it: keys in all, and bytes of one answer (a page of a hundred keys is some 200 KiB).
_MAX_KEYS = 100_000
_MAX_ANSWER_BYTES = 8 << 20
# A budget of Bifrost's is always one that comes again; turns are over before.
_RESET = "1M"
_LOG_RETENTION_DAYS = 30
# A call without a key, which a gateway that enforces keys refuses before it looks at anything else.
_PROBE = {"model": "none", "max_tokens": 1, "messages": [{"role": "user", "content": "."}]}


class _Budget(Struct):
    max_limit: float = 0.0
    current_usage: float = 0.0


class _Key(Struct):
    id: str
    name: str
    created_at: datetime  # without it the orphan scan could not spare what is young
    value: str = ""
    budget: _Budget | None = None


class _Made(Struct):
    virtual_key: _Key


class _Listed(Struct):
    virtual_keys: list[_Key] = []


class _ProviderKey(Struct):
    id: str
    name: str


class _ProviderKeys(Struct):
    keys: list[_ProviderKey] = []


class Bifrost:
    """`async with`. See `port.Gateway`.

    url        of its API, as this process reaches it
    models     `provider/model` that orgs may use, the default first; a provider serves the org by its key `sandreel-<org>-<provider>`
               there
    owner      of our keys among others': their names begin with it. Two installations at one Bifrost need two, for each ends
               the keys of whose turns it does not know
    """

    def __init__(
        self, url: str, username: str, password: str, models: tuple[str, ...], *, owner: str = "sandreel"
    ) -> None:
        self._prefix = f"{owner}:"
        self._url = url.rstrip("/")
        self._username = username
        self._password = password
        self._models = tuple(reference(model) for model in models)
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Bifrost:
        self._session = ClientSession(timeout=ClientTimeout(total=_TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def enforce(self, org: str, dialect: Dialect | None = None) -> tuple[str, ...]:
        """Its switches are set, and then it is proven: a call without a key has to be refused. It translates: every model can be asked
        for in every dialect."""
        if not self._models:
            raise Refused("NO_PROVIDER", "no models are named: give [bridge] bifrost_models")
        served = await self._providers(org)
        models = tuple(name for name in self._models if name.split("/", 1)[0] in served)
        if not models:
            raise Refused(
                "NO_PROVIDER", f"Bifrost has no key sandreel-{org}-<provider> of any of {', '.join(self._models)}"
            )
        await self._apply_auth()
        async with self._request("POST", "/anthropic/v1/messages", _PROBE, admin=False) as (status, _):
            if status not in (401, 403):
                raise Unavailable(f"Bifrost does not refuse calls without a key (it said {status}): no turn starts")
        return models

    async def provision(self, org: str, provider: str, api_key: str) -> None:
        """Give the org a provider's key, or another one in its place."""
        name, path = f"sandreel-{org}-{provider}", f"/api/providers/{quote(provider, safe='')}/keys"
        found = [key for key in (await self._ask("GET", path, _ProviderKeys)).keys if key.name == name]
        body = {"name": name, "value": api_key, "models": [], "weight": 1.0}
        where = f"{path}/{found[0].id}" if found else path
        await self._ask("PUT" if found else "POST", where, Any, body)

    async def mint(self, name: str, terms: KeyTerms) -> VirtualKey:
        for model in terms.models:
            if reference(model) not in self._models:
                raise Refused("MODEL_NOT_ALLOWED", f"{model} is none of {', '.join(self._models)}")
        configs, served = [], await self._providers(terms.org)
        for provider in dict.fromkeys(reference(model).split("/", 1)[0] for model in terms.models):
            if provider not in served:
                raise Refused("NO_PROVIDER", f"Bifrost has no key sandreel-{terms.org}-{provider}")
            # Both forms of a name: programs ask for the bare one, and Bifrost resolves it to the other.
            qualified = [reference(model) for model in terms.models if reference(model).startswith(f"{provider}/")]
            allowed = [*(each.split("/", 1)[1] for each in qualified), *qualified]
            configs.append({"provider": provider, "allowed_models": allowed, "key_ids": [served[provider]], "allow_all_keys": False})  # fmt: skip
        if not configs:
            raise Refused("MODEL_NOT_ALLOWED", "a key needs a model that it may ask for")
        await self.revoke(name)
        body = {
            "name": self._prefix + name,
            "provider_configs": configs,
            "budget": {"max_limit": terms.budget_micro_usd / 1e6, "reset_duration": _RESET},
            "is_active": True,
        }
        made = (await self._ask("POST", _KEYS, _Made, body)).virtual_key
        if not made.value:
            raise Unavailable("Bifrost made a key and did not say its value")
        # Whoever mints the same name at this moment, or had and was not told of it, has made another one: the newest stays.
        *older, newest = await self._named(name) or [made]
        for key in older:
            await self._delete(key)
        if newest.id != made.id:
            raise Unavailable("another key of this name was minted meanwhile")
        return VirtualKey(name, made.value)

    async def standing(self, name: str) -> KeyStanding | None:
        return _standing(name, await self._named(name), live=True)

    async def revoke(self, name: str) -> KeyStanding | None:
        """Bifrost forgets a key that is deleted: its last standing is the one before, and asked again it is None."""
        return _standing(name, [key for key in await self._named(name) if await self._delete(key)], live=False)

    async def live(self) -> list[KeyStanding]:
        """Raises Unavailable also where there are more than can be looked through."""
        found: dict[str, KeyStanding] = {}
        for offset in range(0, _MAX_KEYS, _PAGE):
            page = (await self._ask("GET", f"{_KEYS}?limit={_PAGE}&offset={offset}", _Listed)).virtual_keys
            for key in page:
                name = key.name.removeprefix(self._prefix)
                if key.name.startswith(self._prefix) and name.count(".") == 4 and name not in found:
                    standing = _standing(name, [key], live=True)
                    found |= {name: standing} if standing is not None else {}
            if len(page) < _PAGE:
                return list(found.values())
        raise Unavailable(f"Bifrost lists more than {_MAX_KEYS} virtual keys")

    async def _named(self, name: str) -> list[_Key]:
        """The keys of this name, of which there should be one at most; the newest is the last."""
        asked = f"{_KEYS}?limit={_PAGE}&offset=0&search={quote(self._prefix + name, safe='')}"
        page = (await self._ask("GET", asked, _Listed)).virtual_keys
        return sorted(
            (key for key in page if key.name == self._prefix + name), key=lambda key: (key.created_at, key.id)
        )

    async def _delete(self, key: _Key) -> bool:
        """False: somebody was quicker."""
        try:
            await self._ask("DELETE", f"{_KEYS}/{quote(key.id, safe='')}", Any)
        except NotFound:
            return False
        return True

    async def _providers(self, org: str) -> dict[str, str]:
        """The id of the org's key with each provider that has one."""
        found = {}
        for provider in dict.fromkeys(name.split("/", 1)[0] for name in self._models):
            try:
                keys = (await self._ask("GET", f"/api/providers/{quote(provider, safe='')}/keys", _ProviderKeys)).keys
            except NotFound:
                continue
            for key in keys:
                if key.name == f"sandreel-{org}-{provider}":
                    found[provider] = key.id
        return found

    async def _apply_auth(self) -> None:
        """Only what we decide goes back beside what was there: all of its answer is refused, and a password that is read and
        sent again would be hashed twice (behaviour §7, 42)."""
        config = (await self._ask("GET", "/api/config", dict[str, Any])).get("client_config") or {}
        days = config.get("log_retention_days") or _LOG_RETENTION_DAYS
        wanted = {
            "enforce_auth_on_inference": True,
            "enforce_governance_header": True,
            "log_retention_days": max(1, days),
        }
        if all(config.get(name) == value for name, value in wanted.items()):
            return
        auth = {
            "is_enabled": True,
            "admin_username": self._username,
            "admin_password": self._password,
            "disable_auth_on_inference": True,
        }
        await self._ask("PUT", "/api/config", Any, {"client_config": {**config, **wanted}, "auth_config": auth})

    async def _ask(self, method: str, path: str, reply: Any, body: Mapping[str, Any] | None = None) -> Any:
        """Raises Unavailable and NotFound. What Bifrost says of an error is not passed on: it may hold keys."""
        async with self._request(method, path, body) as (status, said):
            where = path.split("/", 3)[2]
            if status == 404:
                raise NotFound(f"Bifrost knows no such thing below {where}")
            if status in (401, 403):
                raise Unavailable("Bifrost refuses the administrator's name or password: [bridge] bifrost_username", 30)
            if status >= 300:
                raise Unavailable(f"Bifrost said {status} to {method} of {where}")
            try:
                return msgspec.json.decode(said or b"{}", type=reply)
            except msgspec.DecodeError as error:
                raise Unavailable(
                    f"what Bifrost said to {method} of {where} is not of the form of v1.5: {error}"
                ) from None

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, admin: bool = True
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        assert self._session is not None  # noqa: S101 - used within its context
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if admin:
            pair = b64encode(f"{self._username}:{self._password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        try:
            asked = self._session.request(method, self._url + path, data=content, headers=headers)
            async with asked as answer:
                text = bytearray()
                while piece := await answer.content.readany():
                    text += piece
                    if len(text) > _MAX_ANSWER_BYTES:
                        raise Unavailable(f"Bifrost said more than {_MAX_ANSWER_BYTES} bytes to {method}")
                said = answer.status, bytes(text)
        except (ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"Bifrost does not answer: {type(error).__name__}") from None
        yield said


def reference(model: str) -> str:
    """As Bifrost names it, `provider/model`: the first `:` is a `/`, and a quantisation after `@` is left out."""
    name = model if "/" in model else model.replace(":", "/", 1)
    return name.rsplit("@", 1)[0]


def _standing(name: str, keys: Sequence[_Key], *, live: bool) -> KeyStanding | None:
    """Of the keys of that name together; None for none."""
    if not keys:
        return None
    key, (org, session, _, turn, _) = keys[-1], name.split(".")
    spent = round(sum(each.budget.current_usage for each in keys if each.budget) * 1e6)
    return KeyStanding(
        name=name,
        org=org,
        session=session,
        turn=turn,
        created_at=key.created_at,
        live=live,
        usage=Usage(cost_micro_usd=spent),
        budget_micro_usd=round(key.budget.max_limit * 1e6) if key.budget else None,
        charged_micro_usd=spent,
    )
