"""Identity and secrets in a whole stack: tokens that bind, identities that are renewed and refused, sealed values."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sandreel_core.client import Client
from sandreel_core.contract import exec as x
from sandreel_core.contract.bootstrap import Bootstrap, Renew, Renewed
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.contract.session import Ready
from sandreel_core.errors import Denied, Over, Refused
from sandreel_core.keys import seal
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.bootstrap import token_of
from tests.support.program import Done, sandreel
from tests.support.system import ORG, Site, site_at, until
from tests.support.system_users import asker_of, bus_of, recorder_of

# Shared by the module: each test has a session of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")
VALUE = "s3cr3t-" + os.urandom(12).hex()


async def ready_of(site: Site, session: str) -> Ready:
    """The session's `session.ready`, as the log has it."""
    stored = await site.client.bus.last("REEL-0", site.client.subjects(ORG, session).event("session"))
    assert stored is not None
    return msgspec.json.decode(msgspec.json.encode(msgspec.json.decode(stored.body)["data"]), type=Ready)


def token(site: Site, session: str) -> str:
    key = (site.stack.place.state / "installation.key").read_text().strip().encode()
    return token_of(key, Key(ORG, session), site.boot(session).boot_id)


async def test_a_token_is_useless_with_any_other_key(site: Site) -> None:
    session = await site.session()
    ready, boot_id = await ready_of(site, session), site.boot(session).boot_id
    assert set(ready.public_keys) == {"nats", "seal"}
    subjects, right = site.client.subjects(ORG, session), token(site, session)
    stolen = ready.public_keys | {"nats": "U" + "A" * 55}
    async with asker_of(site.stack, session) as asker:
        for keys in (stolen, ready.public_keys | {"seal": "other"}, {}):
            for ask, verb in (
                (Renew(boot_id=boot_id, token=right, public_keys=keys), "renew"),
                (
                    Bootstrap(boot_id=boot_id, token=right, public_keys=keys, runnerd_version="0", contract_version=1),
                    "bootstrap",
                ),
            ):
                with pytest.raises(Denied if keys else Exception):
                    await asker.request(subjects.request("spawner", verb), msgspec.json.encode(ask))
        # The key that it is bound to may ask again, and what it gets is of use to nobody else: only that key signs.
        again = Renew(boot_id=boot_id, token=right, public_keys=ready.public_keys)
        answer = await asker.request(subjects.request("spawner", "renew"), msgspec.json.encode(again))
        assert msgspec.json.decode(answer, type=Renewed).user_jwt
        # Another session's token opens nothing here.
        other = Renew(boot_id=boot_id, token=token(site, await site.session()), public_keys=ready.public_keys)
        with pytest.raises(Over):
            await asker.request(subjects.request("spawner", "renew"), msgspec.json.encode(other))
    assert (await site.client.run(ORG, session, ["echo", "unharmed"])).stdout == b"unharmed\n"


async def test_a_stopped_session_gets_no_identity(site: Site) -> None:
    session = await site.session()
    ready, boot_id, right = await ready_of(site, session), site.boot(session).boot_id, token(site, session)
    await site.client.stop(ORG, session)
    ask = Renew(boot_id=boot_id, token=right, public_keys=ready.public_keys)
    async with asker_of(site.stack, session) as asker:
        with pytest.raises(Over):
            await asker.request(
                site.client.subjects(ORG, session).request("spawner", "renew"), msgspec.json.encode(ask)
            )


async def test_a_secret_reaches_one_exec_and_nothing_else(site: Site) -> None:
    session = await site.session()
    ref = {"TOKEN": x.SecretRef(role="broker", lease="lease-1")}
    await site.stack.parts["broker"].hold()  # we are it
    async with bus_of(site.stack, "broker") as broker:
        asked: list[AskSecret] = []

        async def serve(subject: str, body: bytes) -> bytes:
            ask = msgspec.json.decode(body, type=AskSecret)
            asked.append(ask)
            if ask.lease == "revoked":
                raise Denied(f"no such lease, and the error names {VALUE}")
            sealed = seal((await ready_of(site, subject.split(".")[3])).public_keys["seal"], VALUE.encode())
            if ask.lease == "broken":
                sealed = sealed[:-8] + "AAAAAAA="
            return msgspec.json.encode(Secret(sealed=sealed))

        async with broker.serve("req.broker.*.*.secret", serve):
            handle = await site.client.exec(
                *(ORG, session), shell='printf %s "$TOKEN" | sha256sum', secret_env=ref, exec="has-it"
            )
            result = await handle.collect()
            assert result.stdout.split()[0].decode() == hashlib.sha256(VALUE.encode()).hexdigest()
            assert asked == [AskSecret(lease="lease-1", exec="has-it", boot_id=site.boot(session).boot_id)]
            other = await site.client.run(ORG, session, shell="env; cat /proc/1/environ; cat /proc/self/environ")
            for lease in ("revoked", "broken"):
                gone = {"TOKEN": x.SecretRef(role="broker", lease=lease)}
                with pytest.raises(Refused, match="SECRET_UNAVAILABLE") as refused:
                    await site.client.exec(ORG, session, ["touch", "ran-anyway"], secret_env=gone)
                assert VALUE not in str(refused.value)
    with pytest.raises(Refused, match="nobody serves secrets as broker"):
        await site.client.exec(ORG, session, ["touch", "ran-anyway"], secret_env=ref)
    await site.release("broker")
    assert not (site.folder(session).workspace / "ran-anyway").exists()
    places = [other.stdout, other.stderr, *(stored.body for stored in await site.log())]
    places += [path.read_bytes() for path in [*site.data.glob("logs/*"), site.folder(session).log]]
    assert all(VALUE.encode() not in place for place in places)


async def test_a_session_asks_for_its_own_secrets_alone(site: Site) -> None:
    one, other = await site.session(), await site.session()
    async with recorder_of(site.stack, one) as thief:
        for subject in (
            f"req.broker.{ORG}.{other}.secret",
            f"req.broker.other.{one}.secret",
            f"req.broker.{ORG}.{other}.lease",
        ):
            with pytest.raises(Denied):
                await thief.request(subject, msgspec.json.encode(AskSecret(lease="lease-1", exec="e")))


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sandreel-identity-") as data:
        Path(data).chmod(0o711)
        yield Path(data)


async def test_an_identity_is_renewed_under_a_running_job_and_after_it_has_ended(site: Site) -> None:
    """Every line of a job, through several identities, and through a time when nobody renewed one."""
    with directory() as data:
        async with site_at(data, SANDREEL_SPAWNER_RUNNERD_IDENTITY_S="5") as short:
            session = await short.session()
            handle = await short.client.exec(
                ORG,
                session,
                shell="i=0; until test -e enough; do i=$((i+1)); echo $i; sleep 0.01; done; echo $i > count",
            )
            log, workspace = short.folder(session).log, short.folder(session).workspace
            await until(lambda: log.read_text().count("connected to NATS") >= 4, "renewed twice")
            # Nobody renews: the server ends the connection in time, and what is printed waits.
            await short.stack.parts["spawner"].hold()
            await until(lambda: "the identity has ended" in log.read_text(), "ended")
            short.stack.parts["spawner"].release()
            await short.stack.parts["spawner"].ready()
            (workspace / "enough").touch()
            async with asyncio.timeout(60):
                result = await handle.collect()
            count = int((workspace / "count").read_text())
            assert result.stdout.split() == [str(n).encode() for n in range(1, count + 1)]
            assert (result.exit_code, result.gaps) == (0, ())


async def test_a_service_works_with_its_own_organisation_and_is_cut_off(site: Site, tmp_path: Path) -> None:
    """`sandreel access`: what it writes is all that the ordinary client needs; taken back, it ends at once."""
    create = ("access", "create", "ci", "--org", ORG, "--can")
    done = await sandreel(site.data, *create, "follow,command", "--json", cwd=tmp_path)
    assert done.code == 0, done.said
    [made], creds = done.objects, tmp_path / "ci.creds"
    assert (made["org"], made["can"], made["file"]) == (ORG, ["command", "follow"], "ci.creds")
    assert creds.stat().st_mode & 0o777 == 0o600
    again = await sandreel(site.data, *create, "follow", cwd=tmp_path)
    assert (again.code, "exists" in again.said) == (2, True), again.said
    url, text = f"nats://127.0.0.1:{site.stack.place.keys().nats_port}", creds.read_text()
    session = f"svc-{os.urandom(4).hex()}"
    async with Client.connect(url, creds=text, actor="ci") as client:
        assert (await client.create_session(ORG, session, timeout_s=60)).ready
        handle = await client.exec(ORG, session, ["seq", "3"])
        assert (await handle.collect()).stdout == b"1\n2\n3\n"
        assert (await client.collect(ORG, session, handle.id)).exit_code == 0
        with pytest.raises(Denied):
            await client.create_session("other", session, timeout_s=20)
        with pytest.raises(Denied):
            await client.session("other", session)
        removed = await sandreel(site.data, "access", "rm", "ci")
        assert removed.code == 0, removed.said
        await until(lambda: not client.bus.connected, "cut off")
    with pytest.raises(Denied):
        async with Client.connect(url, creds=text, actor="ci"):
            raise AssertionError("it was taken back")
    assert await sandreel(site.data, "access", "ls", "--json") == Done(0, b"", "")
    for words, why in (
        (("rm", "ci"), "there is no access ci"),
        (("create", "--org", ORG, "--can", "everything"), "is no right"),
        (("create", "a.b", "--org", ORG, "--can", "follow"), "a.b"),
        (("create", "--can", "follow"), "--org"),
    ):
        wrong = await sandreel(site.data, "access", *words, cwd=tmp_path)
        assert (wrong.code, why in wrong.said, "Traceback" in wrong.said) == (2, True, False), wrong.said
