"""Somebody in a sandbox with credentials in hand: `/opt/sandreel/bin/python -I -c <this file>`, in a session's image.

Standard input: {"url", "creds" (the text of a .creds file, none: nobody), "acts": [[verb, …], …]}
    publish subject body reply     "sent" | "denied"
    subscribe subject              "listening" | "denied"
    ask subject body               what was answered | "denied" | "nobody" | "silence"
Standard output: {"acts": [one each], "heard": [[subject, body], …]}, or {"refused": why} when the server takes no such user.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

SILENCE_S = 10.0


class Intruder:
    def __init__(self) -> None:
        self.denied = 0
        self.said = ""
        self.heard: list[list[str]] = []
        self.client: Client
        self.inbox = ""
        self.answers: dict[str, asyncio.Queue[Msg]] = {}

    async def failed(self, error: Exception) -> None:
        self.said = str(error)
        self.denied += "permissions violation" in str(error).lower()

    async def hear(self, message: Msg) -> None:
        self.heard.append([message.subject, message.data.decode()])

    async def publish(self, subject: str, body: str, reply: str = "") -> str:
        before = self.denied
        await self.client.publish(subject, body.encode(), reply)
        await self.flush()
        return "denied" if self.denied > before else "sent"

    async def subscribe(self, subject: str) -> str:
        before = self.denied
        await self.client.subscribe(subject, cb=self.hear)
        await self.flush()
        return "denied" if self.denied > before else "listening"

    async def hear_answer(self, message: Msg) -> None:
        await self.answers[message.subject].put(message)

    async def ask(self, subject: str, body: str) -> str:
        reply, before = f"{self.inbox}.{os.urandom(8).hex()}", self.denied
        answers = self.answers[reply] = asyncio.Queue[Msg]()
        await self.client.publish(subject, body.encode(), reply)
        await self.flush()
        if self.denied > before:
            return "denied"
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await answers.get()
        except TimeoutError:
            return "silence"
        return "nobody" if message.headers and not message.data else message.data.decode()

    async def flush(self) -> None:
        # nats-py writes its PING past what it still holds back: the second is behind it.
        await self.client.flush()
        await self.client.flush()

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        with tempfile.NamedTemporaryFile("w", suffix=".creds") as file:
            if order["creds"] is not None:
                file.write(order["creds"])
                file.flush()
                options["user_credentials"] = file.name
                self.inbox = f"_INBOX.{order['inbox']}"
            try:
                self.client = await nats.connect(
                    order["url"], allow_reconnect=False, max_reconnect_attempts=1, error_cb=self.failed, **options
                )
            except (nats.errors.Error, OSError) as error:
                return {"refused": self.said or str(error)}
            # One for all: how many subscriptions a user may have is limited.
            await self.client.subscribe(f"{self.inbox}.*", cb=self.hear_answer)
            acts = [await getattr(self, verb)(*words) for verb, *words in order["acts"]]
            await self.flush()
            await self.client.close()
        return {"acts": acts, "heard": self.heard}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(Intruder().run(json.load(sys.stdin)))))
