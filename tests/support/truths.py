"""A stack with a gateway before a stand-in of the models, a stand-in of Claude Code that calls it, and what must be true of a turn
afterwards, whatever was killed or failed meanwhile."""

from __future__ import annotations

import base64
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.gateway.account import Account
from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.gateway.port import key_name
from sandreel_bridge.gateway.users import Users
from sandreel_bridge.index import Index
from sandreel_bridge.journal import Name
from sandreel_core.agent import Typed
from sandreel_core.bus.execs import Recorded, follow_exec
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.clock import now
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.exec import Exited, Lost, Output, Started
from sandreel_core.contract.message import Event
from sandreel_core.contract.usage import UsageReconciled, UsageRecorded
from sandreel_core.turn import Turn
from tests.support import claude
from tests.support.bridges import Turns
from tests.support.gateway import PROVIDER_KEY
from tests.support.memory_gateway import MemoryGateway
from tests.support.model_api import Failure, ModelApi, Reply, Tokens
from tests.support.model_api.asked import Asked
from tests.support.system import ORG, STREAM, Site, open_site, until
from tests.support.system_users import bus_of

MODEL = "claude-sonnet-4-5"
# At 3 and 15 USD a million.
TOKENS, COST = Tokens(input=10, cache_read=0, cache_creation=0, output=20), 330
ANSWER = Reply("hello", tokens=TOKENS, first_after_s=0.02)


class Truths(Turns):
    """asked     to the gateway itself
    troubles  what the first calls of a turn meet, by its id
    served    what the provider has answered, by turn
    """

    def __init__(self, site: Site, api: ModelApi, bus: JetStreamBus, program: Path) -> None:
        super().__init__(site, MemoryGateway(), program)  # which nobody asks: the stack's own is there
        self.bus = bus
        self.asked = GatewayClient(bus)
        self.troubles: dict[str, list[Reply | Failure]] = {}
        self.served: defaultdict[str, list[Reply | Failure]] = defaultdict(list)
        api.script = self._answer

    def _answer(self, asked: Asked) -> Reply | Failure:
        turn = asked.items[-1].text.split()[0].rpartition("-")[0]
        waiting = self.troubles.get(turn)
        self.served[turn].append(waiting.pop(0) if waiting else ANSWER)
        return self.served[turn][-1]

    async def hold(self, session: str, turn: str, *, status: str, cut: bool = False) -> Turn:
        """The turn, finished, and all that must be true of it. cut: calls may have been under way when the gateway or the program was
        killed, of which nobody knows what they used."""
        found = await self.until(session, turn)
        await self.settled(session, turn)
        events = [event.data for event in await self.events(session, turn)]
        ends = [event for event in events if isinstance(event, c.TurnFinished)]
        assert [end.status for end in ends] == [status], ends
        assert found.finished == ends[0]
        said = [event for event in events if isinstance(event, a.AgentEvent)]
        printed = [await self.printed(session, f"{turn}-{attempt}") for _, attempt in found.keys]
        assert said == [event for each in printed for event in each], (
            "the agent's events are not what its program printed"
        )
        self.nothing_runs([f"{turn}-{attempt}" for _, attempt in found.keys])
        await self.adds_up(session, turn, found, cut=cut)
        return found

    async def settled(self, session: str, turn: str) -> None:
        index = Index(self.bus)

        async def gone() -> bool:
            return not await index.is_open(Name(ORG, session, turn))

        await until(gone, "the turn is settled", timeout_s=60)

    async def printed(self, session: str, exec: str) -> list[Event]:
        """What its adapter makes of the bytes that stand in the exec's log."""
        subjects, reader = self.client.subjects(ORG, session), adapter("claude-code").reader(c.Usage())
        found: list[Event] = []
        ends = 0
        async with aclosing(follow_exec(self.client.bus, subjects, exec, live=False)) as items:
            async for item in items:
                if not isinstance(item, Recorded):
                    continue
                data, n = item.event.data, item.event.n or 1
                if isinstance(data, Started):
                    timers = (data.timeout_s, data.no_output_timeout_s, data.orphan_timeout_s)
                    assert timers == (None, None, None), "no timer ends an agent"
                new = []
                if isinstance(data, Output) and data.stream == "stdout":
                    new = reader.feed(
                        data.text.encode() if data.text is not None else base64.b64decode(data.base64 or ""), n
                    )
                elif isinstance(data, Exited | Lost):
                    ends += 1
                    new = reader.end(n, data.exit_code if isinstance(data, Exited) else None)
                found += [event for event in new if not isinstance(event, Typed)]
        subject = subjects.exec(exec)
        assert ends == (await self.client.bus.last(subjects.stream, subject) is not None)
        return found

    def nothing_runs(self, execs: list[str]) -> None:
        marks = [f"SANDREEL_EXEC_ID={exec}".encode() for exec in execs]
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                assert not set(marks) & set(variables), f"{(entry / 'cmdline').read_bytes()!r} still runs"
            except OSError:
                continue

    async def adds_up(self, session: str, turn: str, found: Turn, *, cut: bool) -> None:
        usage = await self.usage(session)
        calls = [event for event in once(usage) if event.turn == turn]
        served = self.served[turn]
        whole = [each for each in served if isinstance(each, Reply) and each.cut_after is each.hang_after is None]
        costs = [event.usage.cost_micro_usd for event in calls if event.complete and event.http_status == 200]
        if cut:
            assert len(costs) <= len(whole), "more is recorded than was used"
            assert len(calls) >= len(served), "a call is not even said to be cut"
        else:
            assert (len(costs), len(calls)) == (len(whole), len(served))
        assert costs == [COST] * len(costs)
        charged = 0
        for incarnation, attempt in found.keys:
            name = key_name(ORG, session, incarnation, turn, attempt)
            standing = await self.asked.standing(name)
            if standing is not None:  # else it was interrupted before it had one
                assert not standing.live
                assert standing.calls == len([event for event in calls if event.key == name])
                charged += standing.charged_micro_usd
        assert charged == sum(charge(event) for event in calls)
        assert not [key for key in await self.asked.live() if key.turn == turn]
        reconciled = [event for event in usage if isinstance(event, UsageReconciled) and event.turn == turn]
        assert len(reconciled) <= 1
        for each in reconciled:
            assert each.gateway.output_tokens == sum(event.usage.output_tokens for event in calls)
        assert bool(reconciled) or not calls
        await self.in_the_views(session, turn, calls)

    async def nothing_is_held(self) -> None:
        """Once no turn runs: no budget is reserved, and what is spent is what all calls were charged, once."""
        account, users = await self.account(), await self.users()
        assert list(account.live()) == []
        spent, charged = account.spent(now()), sum(charge(event) for event in once(await self.usage("*")))
        assert spent == charged
        assert sum(sum(of.values()) for part in users for of in part.spent_micro_usd.values()) == spent

    async def in_the_views(self, session: str, turn: str, calls: list[UsageRecorded]) -> None:
        await self.site.projected()
        rows = await self.site.sql(
            "SELECT call_id, cost_micro_usd FROM reel.usage_ledger WHERE session = $1 AND turn = $2", session, turn
        )
        assert sorted(rows) == sorted((event.call_id, event.usage.cost_micro_usd) for event in calls)
        [row] = await self.site.sql("SELECT phase FROM reel.ops WHERE session = $1 AND turn = $2", session, turn)
        assert row == ("finished",)

    async def usage(self, session: str) -> list[Event]:
        found = list[Event]()
        async with aclosing(self.bus.follow(STREAM, [f"evt.0.{ORG}.{session}.usage"], live=False)) as items:
            async for item in items:
                for stored in item if isinstance(item, list) else ():
                    found.append(decode_event(stored.subject, stored.body).data)
        return found

    async def account(self) -> Account:
        stored = await self.bus.last("GATEWAY", f"gateway.account.{ORG}")
        assert stored is not None
        return msgspec.json.decode(stored.body, type=Account)

    async def users(self) -> list[Users]:
        found = list[Users]()
        async with aclosing(self.bus.follow("GATEWAY", [f"gateway.users.{ORG}.*"], live=False)) as items:
            async for item in items:
                for stored in item if isinstance(item, list) else ():
                    found.append(msgspec.json.decode(stored.body, type=Users))
        return found


def once(events: list[Event]) -> list[UsageRecorded]:
    """Each call: one whose acknowledgement was lost is told again in the same words, and not taken by the server within its duplicate
    window, which is a second here. The ledger has it once."""
    found: dict[str, UsageRecorded] = {}
    for event in events:
        if isinstance(event, UsageRecorded):
            assert found.setdefault(event.call_id, event) == event
    return list(found.values())


def charge(event: UsageRecorded) -> int:
    """Of the budget."""
    return event.charged_micro_usd if event.charged_micro_usd is not None else event.usage.cost_micro_usd or 0


@asynccontextmanager
async def open_truths(**settings: str) -> AsyncGenerator[Truths, None]:
    async with AsyncExitStack() as stack:
        # Not below /tmp, of which sessions in bubblewrap have one of their own.
        programs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandreel-agents-", dir="/var/tmp")))
        programs.chmod(0o755)
        program = programs / "claude"
        program.write_text(f"#!{sys.executable} -I\n{Path(claude.SOURCE).read_text()}")
        program.chmod(0o755)
        api = await stack.enter_async_context(ModelApi())
        own = {
            "SANDREEL_GATEWAY_ANTHROPIC_API_KEY": PROVIDER_KEY,
            "SANDREEL_GATEWAY_ANTHROPIC_URL": api.url,
            "SANDREEL_GATEWAY_MODELS": MODEL,
            "SANDREEL_BRIDGE_PROGRAMS": f"claude={program}",
        }
        site = await stack.enter_async_context(open_site(stop_sessions=True, **(own | settings)))
        yield Truths(site, api, await stack.enter_async_context(bus_of(site.stack)), program)
