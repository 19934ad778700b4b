"""The proxy itself: one request of a sandbox, judged, passed on, and its reply passed back as it comes.

This, `front.py` and `provider.py` are the files that know aiohttp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

from aiohttp import ClientError, web

from sandreel_bridge.gateway import passing
from sandreel_bridge.gateway.account import Key
from sandreel_bridge.gateway.call import Call, read_call
from sandreel_bridge.gateway.dialect import Route, dialect_of, models_list, refusal, route
from sandreel_bridge.gateway.front import invite
from sandreel_bridge.gateway.keyring import Keyring
from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.meter import Outcome, estimate_micro_usd, recorded
from sandreel_bridge.gateway.orgs import Orgs
from sandreel_bridge.gateway.port import Dialect
from sandreel_bridge.gateway.provider import NOT_SENT, Providers, Reply
from sandreel_bridge.gateway.purse import BUDGET_SPENT, KeyOver, OpenCall, Purse
from sandreel_bridge.gateway.recorder import Recorder
from sandreel_bridge.gateway.room import Room
from sandreel_bridge.gateway.settings import Settings
from sandreel_bridge.gateway.tap import Tap
from sandreel_core.errors import Malformed, Refused, Unavailable
from sandreel_core.log import Log

_JSON = "application/json"
_NO_KEY = "the gateway does not know this key, or it is over"
# For a request to come whole, over a network of this machine.
_BODY_WITHIN_S = 60.0
# After which a key that has too much under way may ask again.
_SOON_S = 1.0


class _No(Exception):
    """What the sandbox is told instead."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


class Proxy:
    """`handle` is the handler of every request."""

    def __init__(
        self,
        settings: Settings,
        orgs: Orgs,
        keyring: Keyring,
        recorder: Recorder,
        providers: Providers,
        measures: GatewayMeasures,
        *,
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._orgs = orgs
        self._keyring = keyring
        self._recorder = recorder
        self._providers = providers
        self._measures = measures
        self._new_id = new_id
        self._monotonic = monotonic
        self._now = now
        self._room = Room(
            calls=settings.max_calls,
            calls_of_key=settings.max_calls_per_key,
            bodies_bytes=settings.max_bodies_bytes,
            tell=measures.open.set,
        )
        self._log = Log("gateway")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        dialect = dialect_of(request.raw_path)
        try:
            return await self._answer(request)
        except _No as no:
            self._measures.refused.add(str(no.status))
            return _say(dialect, no.status, no.message, no.retry_after_s)
        except web.HTTPRequestEntityTooLarge:
            self._measures.refused.add("413")
            limit = self._settings.max_body_bytes
            return _say(dialect, 413, f"the request is over the gateway's limit of {limit} bytes")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        way = route(request.method, request.raw_path)
        value = passing.presented(request.headers)
        purse = self._keyring.find(value) if value else None
        if purse is None:  # first of all: a stranger is told nothing of what there is
            raise _No(401, _NO_KEY)
        if way is None:
            raise _No(404, f"{request.method} {request.path[:200]} does not pass the gateway")
        key = purse.key
        terms = key.terms
        if way.provider not in self._orgs.providers(terms.org):
            raise _No(403, f"the org {terms.org} has no provider for {way.provider}")
        if way.lists:
            return web.Response(body=models_list(way.provider, terms.models), content_type=_JSON)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _No(415, "the gateway reads requests that are not compressed")
        length = request.content_length
        try:
            # What comes in pieces may be as long as any.
            with self._room.taken(key.name, self._settings.max_body_bytes if length is None else length) as came:
                body = await self._body(request)
                came(len(body))
                call = read_call(way, body)
                if call.model not in terms.models:
                    raise _No(403, f"the model {call.model} is not one of this key's: {', '.join(terms.models)}")
                if not way.metered:
                    return await self._pass_free(request, way, call, purse, key)
                return await self._meter(request, way, call, purse, key)
        except Malformed as error:
            raise _No(400, str(error)) from None
        except KeyOver:
            raise _No(401, _NO_KEY) from None
        except Refused as error:
            spent = error.code == BUDGET_SPENT
            raise _No(402 if spent else 429, error.message, None if spent else _SOON_S) from None
        except Unavailable as error:
            raise _No(503, str(error), error.retry_after_s) from None

    async def _body(self, request: web.BaseRequest) -> bytes:
        if (request.content_length or 0) > self._settings.max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._settings.max_body_bytes, request.content_length or 0)
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                await invite(request)
                return await request.read()
        except TimeoutError:
            raise _No(408, f"the request has not come within {_BODY_WITHIN_S:g} s") from None

    async def _meter(
        self, request: web.BaseRequest, way: Route, call: Call, purse: Purse, key: Key
    ) -> web.StreamResponse:
        self._recorder.check()
        estimate = estimate_micro_usd(self._orgs.prices, way.provider, call)
        if estimate is None and self._settings.unpriced == "refuse":
            raise _No(403, f"the model {call.model} has no known price, so no budget holds it")
        id = self._new_id()
        opened = OpenCall(call_id=id, provider=way.provider, model=call.model, held_micro_usd=estimate or 0)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler runs in one
        try:
            await purse.hold(key, opened, wait_s=self._settings.budget_wait_s, cut=task.cancel)
        except Unavailable as error:
            raise _No(429, str(error), error.retry_after_s) from None
        self._begin(purse, id)
        return await _Passage(self, request, way, call, purse, id).run()

    def _begin(self, purse: Purse, id: str) -> None:
        """Raises Unavailable."""
        try:
            self._recorder.begin(purse, id)
        except Unavailable:
            purse.settle(id, None)
            raise

    async def _pass_free(
        self, request: web.BaseRequest, way: Route, call: Call, purse: Purse, key: Key
    ) -> web.Response:
        """What costs nothing: tokens that are counted before a call."""
        purse.check(key)
        try:
            async with self._providers.ask(way, request, call.body) as reply:
                return await self.copy(way.provider, reply)
        except (ClientError, TimeoutError, OSError) as error:
            raise _No(502, f"the provider {way.provider} cannot be reached: {_why(error)}") from None

    async def copy(self, provider: Dialect, reply: Reply) -> web.Response:
        """A short reply, whole. The provider's key is in nothing that a sandbox gets: 401 and 403 are about the gateway's own,
        so of these only the status is passed on."""
        if reply.status in (401, 403):
            self._log.error("a provider refuses the gateway's key", provider=provider, status=reply.status)
            return _say(
                provider, reply.status, f"the provider {provider} refuses the gateway: its operator has to look"
            )
        body = await reply.short()
        if body is None:
            status = reply.status if reply.status >= 400 else 502
            return _say(provider, status, f"what the provider {provider} says is too long to be passed on")
        response = web.Response(status=reply.status, body=self._providers.without_key(provider, body))
        for name, value in passing.told(reply.headers.items()):
            if name.lower() not in ("content-length", "content-type"):
                response.headers.add(name, value)
        response.headers["Content-Type"] = reply.headers.get("Content-Type", _JSON)
        return response

    def ended(self, purse: Purse, id: str, way: Route, call: Call, outcome: Outcome) -> None:
        """A call is over: it is charged and recorded, whatever became of it. Never waits."""
        if outcome.status is None and not outcome.sent:
            purse.settle(id, None)
            self._measures.calls.add(way.provider, "unreachable")
            self._recorder.drop(purse, id)
            return
        event = recorded(id, purse.key.name, purse.key.terms, way.provider, call, outcome, self._orgs.prices)
        purse.settle(id, event)
        self._recorder.record(purse, event)
        failed = outcome.status is not None and outcome.status >= 400
        self._measures.calls.add(
            way.provider, str(outcome.status) if failed else "complete" if outcome.whole else "cut"
        )
        if event.usage.cost_micro_usd is None:
            self._measures.unpriced.add()
        else:
            self._measures.cost.add(way.provider, by=event.usage.cost_micro_usd / 1e6)

    async def exchange(self, passage: _Passage) -> web.StreamResponse:
        async with self._providers.ask(passage.way, passage.request, passage.call.body) as reply:
            passage.status, passage.sent = reply.status, True
            self._measures.first_byte_s.observe(self._monotonic() - passage.began)
            if reply.status >= 300:
                response = await self.copy(passage.way.provider, reply)
                passage.whole = True
                return response
            return await passage.stream(reply)


class _Passage:
    """One metered call, from its request to the end of its reply. What is known of it is kept as it goes, so that it can be
    charged at whatever point it ends."""

    def __init__(self, proxy: Proxy, request: web.BaseRequest, way: Route, call: Call, purse: Purse, id: str) -> None:
        self.request, self.way, self.call = request, way, call
        self.status: int | None = None
        self.sent = self.given_up = False
        self.whole = False
        self.began = proxy._monotonic()
        self._proxy = proxy
        self._purse, self._id = purse, id
        self._tap: Tap | None = None
        self._response: web.StreamResponse | None = None

    async def run(self) -> web.StreamResponse:
        provider = self.way.provider
        try:
            return await self._proxy.exchange(self)
        except (ClientError, TimeoutError, OSError) as error:
            if not isinstance(error, NOT_SENT):
                self.sent = True  # it has the request, and may be working on it
            if self._response is not None:
                # An end that looks orderly would make a cut reply look complete.
                if self.request.transport is not None:
                    self.request.transport.abort()
                return self._response
            if isinstance(error, TimeoutError):
                raise _No(504, f"the provider {provider} has not answered in time") from None
            raise _No(502, f"the provider {provider} cannot be reached: {_why(error)}") from None
        except asyncio.CancelledError:
            self.sent = self.given_up = (
                True  # the sandbox left, or the key was revoked, and the provider may have begun
            )
            raise
        finally:
            self._settle()

    async def stream(self, reply: Reply) -> web.StreamResponse:
        kind = reply.headers.get("Content-Type", "")
        tap = self._tap = Tap(self.way.api, streams="event-stream" in kind)
        response = web.StreamResponse(status=reply.status)
        response.headers.extend(passing.told(reply.headers.items()))
        await response.prepare(self.request)
        self._response = response
        async for piece in reply.pieces():
            tap.feed(piece)
            await response.write(piece)
        tap.end(in_order=True)
        self.whole = tap.told.ended
        await response.write_eof()
        return response

    def _settle(self) -> None:
        tap = self._tap
        if tap is not None and not self.whole:
            tap.end()
        outcome = Outcome(
            status=self.status,
            sent=self.sent,
            whole=self.whole,
            tokens=tap.told.tokens if tap else None,
            model=tap.told.model if tap else None,
            least_output=tap.least_output if tap else 0,
            standard=tap is None or tap.told.standard,
            given_up=self.given_up,
            duration_ms=round((self._proxy._monotonic() - self.began) * 1000),
        )
        self._proxy.ended(self._purse, self._id, self.way, self.call, outcome)


def _say(dialect: Dialect, status: int, message: str, retry_after_s: float | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    return web.Response(status=status, body=refusal(dialect, status, message), content_type=_JSON, headers=headers)


def _why(error: BaseException) -> str:
    """No more than the kind: an address or a header may stand in the text."""
    return type(error).__name__
