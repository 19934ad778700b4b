"""The proxy on loopback, with real servers behind it and a resolver that changes its mind."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address

import pytest

from sandreel_core.egress.rules import Scope
from tests.support.egress import FAR, LIMIT_S, NOBODY, ONE, TWO, connect_to, echo, gate, server

pytestmark = pytest.mark.timeout(60)


async def test_bytes_go_both_ways_unchanged() -> None:
    sent = bytes(range(256)) * 20_000  # 5 MB: more than all buffers on the way
    async with server(echo) as far, gate() as here:
        here.ports[443] = far
        reader, writer = await here.tunnel()

        async def send() -> None:
            for start in range(0, len(sent), 50_000):
                writer.write(sent[start : start + 50_000])
                await writer.drain()
            writer.write_eof()

        async with asyncio.timeout(LIMIT_S):
            back, _ = await asyncio.gather(reader.read(), send())
        assert back == sent
        rendered = here.metrics.render
        await here.until(lambda: f"sandreel_egress_sent_bytes_total {len(sent)}" in rendered())
        assert f"sandreel_egress_received_bytes_total {len(sent)}" in rendered()
        assert 'decisions_total{decision="allowed"} 1' in rendered()
        writer.close()


async def test_what_is_sent_behind_the_head_is_not_lost() -> None:
    async with server(echo) as far, gate() as here:
        here.ports[443] = far
        reader, writer = await here.connect()
        writer.write(connect_to("far.example:443").encode() + b"early")
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            answer = await reader.read()
        assert answer.endswith(b"\r\n\r\nearly")
        writer.close()


async def test_each_direction_ends_by_itself() -> None:
    """A client that has said all it has to say still gets the answer; and the other way round."""
    answered = asyncio.Event()

    async def sums(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()  # to the end of what the client says
        await answered.wait()
        writer.write(str(len(data)).encode())
        writer.write_eof()

    async def shouts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        heard.set_result(await reader.read())

    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with server(sums) as far, server(shouts) as other, gate() as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        writer.write(b"x" * 1000)
        writer.write_eof()
        answered.set()
        assert await reader.read() == b"1000"
        writer.close()

        here.ports[443] = other
        reader, writer = await here.tunnel()
        assert await reader.read() == b"hello"
        writer.write(b"still here")
        writer.write_eof()
        assert await heard == b"still here"
        writer.close()


async def test_a_reset_does_not_look_like_an_orderly_end() -> None:
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with server(cuts) as far, gate() as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        assert await reader.readexactly(4) == b"half"
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_a_slow_reader_makes_the_sender_wait() -> None:
    """Backpressure: what is on its way is bounded by buffers, not by what the far side could send."""
    sent = 0

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        while sent < 64 << 20:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with server(pours) as far, gate() as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 32 << 20, "the kernel's socket buffers, and no queue of ours"
        stalled_at = sent
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await reader.readexactly(stalled_at + (1 << 20))) == stalled_at + (1 << 20)
        writer.close()


async def test_a_name_that_changes_its_address_between_check_and_use_is_no_way_in() -> None:
    """The second answer is never asked for: the address that was checked is the one that is dialled."""
    async with server(echo) as far, gate() as here:
        here.ports[443] = far
        here.names["rebind.example"] = [[FAR], ["169.254.169.254"], ["10.0.0.1"]]
        _, writer = await here.tunnel("rebind.example:443")
        assert (here.looked_up, here.dialled) == (["rebind.example"], [FAR])
        writer.close()
        answer = await here.ask(connect_to("rebind.example:443"))
        assert answer.startswith("HTTP/1.1 403 ")
        assert "error=destination_ip_prohibited" in answer
        assert "rebind.example is 169.254.169.254, which is not global: link-local" in answer
        assert here.dialled == [FAR]


async def test_of_several_addresses_only_the_global_ones_are_dialled() -> None:
    async with server(echo) as far, gate() as here:
        here.ports[443] = far
        here.names["mixed.example"] = [["10.0.0.1", "fd00::1", FAR, "::1"]]
        _, writer = await here.tunnel("mixed.example:443")
        assert here.dialled == [FAR]
        writer.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("169.254.169.254:443", 403), ("10.0.0.1:443", 403), ("[::1]:443", 403), ("[::ffff:8.8.8.8]:443", 403)),
        *(("[64:ff9b::808:808]:443", 403), ("[2002:808:808::1]:443", 403), ("100.100.100.200:443", 403)),
        *(("0x7f.1:443", 400), ("2130706433:443", 400), ("127.1:443", 400), ("[fe80::1%lo]:443", 400)),
        *(("far.example:22", 403), ("far.example:80", 403), ("far.example", 400), ("nowhere.example:443", 502)),
    ],
)
async def test_what_is_refused_is_not_dialled(host: str, status: int) -> None:
    async with gate() as here:
        answer = await here.ask(connect_to(host))
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert "Proxy-Status: sandreel-egress; error=" in answer
        assert here.dialled == []


async def test_a_dead_host_is_told_as_such_and_is_no_refusal() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        async with gate() as here:
            here.ports[443] = held.getsockname()[1]
            answer = await here.ask(connect_to("far.example:443"))
            assert answer.startswith("HTTP/1.1 502 ")
            assert "connection refused" in answer
            assert await here.denials() == []


async def test_whoever_says_nothing_or_too_much_is_sent_away() -> None:
    async with gate(head_timeout_s=0.3, max_head_bytes=1024) as here, asyncio.timeout(LIMIT_S):
        reader, writer = await here.connect()
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()

        reader, writer = await here.connect()  # slow loris: a byte now and then does not buy time

        async def drip() -> None:
            for letter in b"CONNECT far.example:443 HTTP/1.1\r\n" * 1000:
                writer.write(bytes([letter]))
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        dripping.cancel()
        writer.close()

        answer = await here.ask("GET http://far.example/ HTTP/1.1\r\n" + "X: " + "y" * 5000)
        assert answer.startswith("HTTP/1.1 431 ")
        assert "1024 bytes" in answer


async def test_a_tunnel_in_which_nothing_moves_is_cut() -> None:
    async with server(echo) as far, gate(idle_timeout_s=1.5) as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        for _ in range(4):  # longer in all than the limit
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            await asyncio.sleep(0.5)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert "sandreel_egress_idle_total 1" in here.metrics.render()
        writer.close()


async def test_connections_are_bounded_per_session_and_in_all() -> None:
    async with server(echo) as far, gate(max_connections_per_session=2, max_connections=3) as here:
        here.ports[443] = far
        held = [await here.tunnel() for _ in range(2)]
        answer = await here.ask(connect_to("far.example:443"))
        assert answer.startswith("HTTP/1.1 503 ")
        assert "more than 2 connections of this session" in answer
        await here.until(lambda: "connections_open 2" in here.metrics.render())
        held.append(await here.tunnel(source=TWO))
        reader, writer = await here.connect(TWO)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        held.pop(0)[1].transport.abort()
        await here.until(lambda: "connections_open 2" in here.metrics.render())
        held.append(await here.tunnel())
        for _, each in held:
            each.close()


async def test_one_sessions_slow_names_do_not_keep_another_waiting() -> None:
    stuck = asyncio.Event()
    loop = asyncio.get_running_loop()

    async with server(echo) as far:

        def look_up(name: str) -> object:
            if name.startswith("slow"):
                asyncio.run_coroutine_threadsafe(stuck.wait(), loop).result(LIMIT_S)
            return here.look_up("far.example")

        async with gate(look_up=look_up, connect_timeout_s=10) as here:  # type: ignore[arg-type]
            here.ports[443] = far
            waiting = []
            for number in range(40):
                _, writer = await here.connect()
                writer.write(connect_to(f"slow{number}.example:443").encode())
                waiting.append(writer)
            await asyncio.sleep(0.1)
            async with asyncio.timeout(5):
                _, writer = await here.tunnel(source=TWO)
            writer.close()
            for writer in waiting:
                writer.transport.abort()
            stuck.set()


async def test_a_bug_that_one_connection_meets_does_not_end_the_others() -> None:
    def look_up(name: str) -> list[IPv4Address]:
        if name == "bug.example":
            raise RuntimeError("a bug")
        return [IPv4Address(FAR)]

    async with server(echo) as far, gate(look_up=look_up) as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        assert await here.ask(connect_to("bug.example:443")) == ""
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert 'decision="internal"} 1' in here.metrics.render()


async def test_a_client_whose_address_is_nobodys_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_core.egress.proxy.PLACE_WAIT_S", 0.1)
    async with gate() as here:
        answer = await here.ask(connect_to("far.example:443"), NOBODY)
        assert answer.startswith("HTTP/1.1 403 ")
        assert "belongs to no session" in answer
        assert here.looked_up == []


async def test_the_allowlist_decides_before_a_name_is_looked_up() -> None:
    async with server(echo) as far, gate() as here:
        here.ports[443] = far
        await here.register.allow(Scope("acme"), ["*.example"])
        await here.register.allow(Scope("acme", "s2"), ["other.example"])
        await here.until(lambda: True)
        _, writer = await here.tunnel(source=ONE)
        writer.close()
        async with asyncio.timeout(LIMIT_S):
            while "allowlist of acme/s2" not in await here.ask(connect_to("elsewhere.example:443"), TWO):
                await asyncio.sleep(0.02)
        before = len(here.looked_up)
        answer = await here.ask(connect_to("secret-in-a-name.test:443"))
        assert "secret-in-a-name.test is not on the allowlist of acme\n" in answer
        assert len(here.looked_up) == before


@pytest.mark.parametrize("on", [True, False])
async def test_plain_http_is_one_request_a_connection_and_only_where_configured(on: bool) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(3) if heads[-1].startswith(b"POST") else b""
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ngot:" + body)

    async with server(serve) as far, gate(plain_http=on) as here:
        here.ports[80] = far
        answer = await here.ask("GET http://far.example/x HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        if not on:
            assert answer.startswith("HTTP/1.1 403 ")
            assert here.dialled == []
            return
        assert answer.endswith("got:")
        assert heads == [b"GET /x HTTP/1.1\r\nhost: far.example\r\nconnection: close\r\n\r\n"]
        post = "POST http://far.example/ HTTP/1.1\r\nContent-Length: 3\r\n\r\n"
        assert (await here.ask(f"{post}abc")).endswith("got:abc")
        # A second request behind the first might be for another host of the same address.
        reader, writer = await here.connect()
        writer.write(f"{post}abcGET / HTTP/1.1\r\nHost: other.example\r\n\r\n".encode())
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(LIMIT_S):
                await reader.readuntil(b"got:abc")
        writer.close()
        assert not any(b"other.example" in head for head in heads)
        assert "far.example:8080" not in here.dialled
