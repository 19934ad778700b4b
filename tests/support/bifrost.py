"""A double of Bifrost's management API, in the shapes of behaviour §4.8 and its documentation (v1.5): keys in memory, no models."""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

USERNAME, PASSWORD = "admin", "a-password"


class Bifrost:
    """`url` is set while it serves. `asked`: method and path of every request. `lenient`: it takes calls without a key;
    `twice`: a name for several keys. `flood`: what it says to everything."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.lenient = self.twice = False
        self.flood = b""
        self.keys: dict[str, dict[str, Any]] = {}
        self.providers: dict[str, dict[str, dict[str, Any]]] = {"anthropic": {}}
        self.config: dict[str, Any] = {"client_config": {"log_retention_days": 0, "drop_excess_requests": False}}
        self._ids = itertools.count(1)

    def spend(self, name: str, usd: float) -> None:
        for key in self.keys.values():
            if key["name"] == f"sandreel:{name}":
                key["budget"]["current_usage"] += usd

    def serves(self, value: str) -> bool:
        """Whether a call with this key would pass."""
        return any(key["value"] == value and key["is_active"] for key in self.keys.values())

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        body = json.loads(await request.read() or b"null")
        if not request.path.startswith("/api/"):
            enforced = self.config["client_config"].get("enforce_auth_on_inference") and not self.lenient
            return web.json_response({"error": "virtual key is required"}, status=401 if enforced else 400)
        if request.headers.get("Authorization") != "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode():
            return web.json_response({"error": "unauthorized"}, status=401)
        if self.flood:
            return web.Response(body=self.flood)
        parts = request.path.strip("/").split("/")[1:]
        match request.method, parts:
            case "GET", ["config"]:
                return web.json_response(self.config | {"is_db_connected": True})
            case "PUT", ["config"]:
                if body.keys() - {"client_config", "auth_config"}:
                    return web.json_response({"error": "unknown field"}, status=400)
                self.config |= body
                return web.json_response({"status": "success"})
            case _, ["providers", provider, "keys", *rest]:
                return self._provider(request.method, provider, rest, body)
            case "GET", ["governance", "virtual-keys"]:
                search = request.query.get("search", "")
                found = [key for key in self.keys.values() if search in key["name"]]
                start, count = int(request.query.get("offset", 0)), int(request.query.get("limit", 50))
                return web.json_response({"virtual_keys": found[start : start + count], "total_count": len(found)})
            case "POST", ["governance", "virtual-keys"]:
                return self._mint(body)
            case "DELETE", ["governance", "virtual-keys", id]:
                if self.keys.pop(id, None) is None:
                    return web.json_response({"error": "not found"}, status=404)
                return web.json_response({"message": "Virtual key deleted successfully"})
        return web.json_response({"error": "no such path"}, status=404)

    def _provider(self, method: str, provider: str, rest: list[str], body: Any) -> web.Response:
        if provider not in self.providers:
            return web.json_response({"error": "provider not found"}, status=404)
        keys = self.providers[provider]
        if method == "GET":
            return web.json_response({"keys": list(keys.values()), "total": len(keys)})
        id = rest[0] if rest else f"pk-{next(self._ids)}"
        keys[id] = {"id": id, "name": body["name"], "value": {"value": body["value"][:4] + "****"}, "weight": 1}
        return web.json_response(keys[id])

    def _mint(self, body: Any) -> web.Response:
        if not self.twice and any(key["name"] == body["name"] for key in self.keys.values()):
            return web.json_response({"error": "a virtual key of this name exists"}, status=409)
        for config in body["provider_configs"]:
            known = self.providers.get(config["provider"], {})
            if config["allow_all_keys"] or not config["key_ids"] or set(config["key_ids"]) - known.keys():
                return web.json_response({"error": "invalid key ids"}, status=400)
        if body["budget"]["reset_duration"] not in ("1m", "1h", "1d", "1w", "1M"):
            return web.json_response({"error": "invalid reset duration"}, status=400)
        id = f"vk-{next(self._ids)}"
        budget = {"id": f"b-{id}", "current_usage": 0.0, "last_reset": "2026-11-26T00:00:00Z", **body["budget"]}
        made = "2026-11-26T00:00:00Z"
        self.keys[id] = body | {
            "id": id,
            "value": f"sk-bf-{id}",
            "budget": budget,
            "created_at": made,
            "updated_at": made,
        }
        return web.json_response({"message": "Virtual key created successfully", "virtual_key": self.keys[id]})


@asynccontextmanager
async def bifrost() -> AsyncGenerator[Bifrost, None]:
    double = Bifrost()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", double.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        double.url = "http://{}:{}".format(*runner.addresses[0][:2])
        yield double
    finally:
        await runner.cleanup()
