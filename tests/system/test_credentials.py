"""Credentials in a whole stack: put, granted, leased by git and by programs and by turns, revoked; and their bytes nowhere else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sandreel_core.client import Result
from sandreel_core.contract import credential as c
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Refused
from tests.support import program
from tests.support.bridges import Turns, open_turns, texts
from tests.support.credentials import sandreel
from tests.support.git_server import GitServer, git_server
from tests.support.github_api import Api, github_api
from tests.support.system import ORG, Site, until

# Shared by the module: each test has a session of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")
VALUE = "ghp_" + os.urandom(15).hex()
TOKEN = "tok-" + os.urandom(15).hex()
KUBECONFIG = f"apiVersion: v1\ntoken: {TOKEN}\n"
CLONE = "GIT_TERMINAL_PROMPT=0 git clone -q {} tool"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    async with open_turns() as turns, turns.bridge():
        yield turns


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("git"), VALUE) as server:
        server.make("acme/tool")
        yield server


@pytest.fixture(scope="module")
def api(server: GitServer) -> Iterator[Api]:
    """It makes tokens for the git server."""
    with github_api(server.passwords) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(turns: Turns, server: GitServer, api: Api) -> Site:
    """With four values in its vault."""
    site = turns.site
    options = (f"--set=host={server.host}", "--set=scheme=http")
    assert VALUE not in await sandreel(site, "put", "github", *options, value=f"{VALUE}\n")
    await sandreel(site, "put", "cluster", "--recipe", "kubeconfig", value=KUBECONFIG)
    await sandreel(site, "put", "tool", value=TOKEN)
    app = ("--recipe=github-app", "--set=app_id=7", "--set=installation_id=42", f"--set=api={api.url}")
    await sandreel(site, "put", "app", *app, *options, value=api.pem.decode())
    return site


async def shell(site: Site, session: str, text: str) -> Result:
    """By a login shell, whose PATH begins as the machine's own."""
    return await site.client.run(ORG, session, shell=text, timeout_s=60)


async def grant(site: Site, session: str, slug: str = "github", **fields: Any) -> None:
    await site.client.send(ORG, session, c.Grant(slug=slug, **fields))


async def events(site: Site, session: str) -> list[Envelope]:
    """The session's events about credentials."""
    subject = site.client.subjects(ORG, session).event("credential")
    return [decode_event(each.subject, each.body) for each in await site.log() if each.subject == subject]


async def of(site: Site, session: str, kind: type[Any]) -> list[Any]:
    return [event.data for event in await events(site, session) if isinstance(event.data, kind)]


async def test_git_clones_and_pushes_by_a_grant_and_not_without(site: Site, server: GitServer) -> None:
    session = await site.session()
    clone = CLONE.format(server.url("acme/tool"))
    assert (await shell(site, session, clone)).exit_code != 0
    assert await of(site, session, c.Leased) == []
    await grant(site, session, purpose="a fix")
    push = "cd tool && echo more > more && git add more && git -c user.name=a -c user.email=a@b commit -qm more"
    done = await shell(site, session, f"{clone} && {push} && git push -q origin HEAD:main && cat README")
    assert (done.exit_code, done.stdout) == (0, b"acme/tool"), done.stderr
    assert server.subjects("acme/tool") == ["more", "first"]
    assert set(server.users) == {"x-access-token"}
    (lease, *_) = await of(site, session, c.Leased)
    assert (lease.slug, lease.exec, lease.injected) == ("github", done.exec_id, False)
    assert "git" in lease.program
    assert lease.purpose.startswith(f"git http://{server.host}/")
    await site.client.send(ORG, session, c.Revoke(slug="github"))
    server.users.clear()
    after = await shell(site, session, "cd tool && GIT_TERMINAL_PROMPT=0 git fetch -q origin")
    assert (after.exit_code != 0, server.users) == (True, [])
    names = [event.type for event in await events(site, session)]
    assert (names[0], names[-1]) == ("credential.granted", "credential.revoked")


async def test_a_turn_has_what_it_was_started_with_and_no_longer(turns: Turns, site: Site, server: GitServer) -> None:
    clone = CLONE.format(server.url("acme/tool"))
    session, turn = await turns.run(f"sh cd && rm -rf tool && {clone} && cat tool/README", grants=["github", "absent"])
    said = await turns.events(session, (await turns_of(site, session))[0])
    assert turn.finished is not None
    assert (turn.finished.status, texts(said)) == ("success", ["acme/tool(0)"])

    async def ended() -> bool:
        return any(each.reason == "turn_ended" for each in await of(site, session, c.Revoked))

    await until(ended, "the turn's grant has ended")
    (granted,) = await of(site, session, c.Granted)
    (lease, *_) = await of(site, session, c.Leased)
    assert granted.turn == lease.turn
    _, after = await turns.run(f"sh cd && rm -rf tool && {clone}", session)
    assert after.finished is not None
    assert len(await of(site, session, c.Leased)) == 1


async def turns_of(site: Site, session: str) -> list[str]:
    prefix = site.client.subjects(ORG, session).event("turn", "x")[:-1]
    return [each.subject.removeprefix(prefix) for each in await site.log() if each.subject.startswith(prefix)]


async def test_a_turn_goes_on_without_what_a_broker_that_is_away_does_not_give(turns: Turns, site: Site) -> None:
    """Nothing is leased meanwhile, and what is granted late ends with the turn that has ended."""
    await site.kill_and_hold("broker")
    try:
        session, turn = await turns.run("sh cd; sandreel-credential get tool || echo without", grants=["tool"])
    finally:
        await site.release("broker")
    said = texts(await turns.events(session, (await turns_of(site, session))[0]))
    assert turn.finished is not None
    assert turn.finished.status == "success"
    assert said[0].startswith("without\n"), said
    assert "there is no broker" in said[0]
    assert await of(site, session, c.Leased) == []

    async def nothing_stands() -> bool:
        return len(await of(site, session, c.Granted)) == len(await of(site, session, c.Revoked))

    await until(nothing_stands, "no grant outlives the turn")


async def test_a_session_that_dies_holds_nothing_afterwards(site: Site, server: GitServer, api: Api) -> None:
    """Its recorder is killed while it holds a value in an exec, and a minted token."""
    session = await site.session()
    for slug in ("tool", "app"):
        await grant(site, session, slug)
    refs = {"TOOL": x.SecretRef(role="broker", lease="tool")}
    await site.client.exec(ORG, session, ["sleep", "600"], secret_env=refs)
    assert (await shell(site, session, "sandreel-credential get app")).exit_code == 0
    leased = {each.lease_id for each in await of(site, session, c.Leased)}
    assert (len(leased), len(server.passwords & set(api.made))) == (2, 1)
    site.kill_runnerd(session)
    await site.stopped(session)

    async def all_over() -> bool:
        over = {id for each in await of(site, session, c.Revoked) for id in each.lease_ids}
        return over == leased and not server.passwords & set(api.made)

    await until(all_over, "every lease was revoked, and the token ended where it was made")
    assert {each.reason for each in await of(site, session, c.Revoked)} == {"stopped"}


async def test_programs_get_a_value_for_one_command(site: Site) -> None:
    session = "with-grants"
    made = await program.sandreel(site.data, "session", "create", session, "--grant", "tool", "--grant", "cluster")
    assert made.said == f"{session}\n"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    text = "sandreel-credential run tool -- sh -c 'printf %s \"$TOOL_TOKEN\" | sha256sum'; env | grep -c TOOL_TOKEN"
    done = await shell(site, session, text)
    assert done.stdout.decode().split() == [digest, "-", "0"], done.stderr
    look = "echo $KUBECONFIG; stat -f -c %T $KUBECONFIG; sha256sum < $KUBECONFIG"
    done = await shell(site, session, f"sandreel-credential run cluster -- sh -c '{look}'")
    path, kind, read = done.stdout.decode().splitlines()
    assert (kind, read.split()[0]) == ("tmpfs", hashlib.sha256(KUBECONFIG.encode()).hexdigest())
    assert (await shell(site, session, f"test -e {Path(path).parent}")).exit_code == 1
    # Said aloud, it is masked.
    assert TOKEN.encode() not in (await shell(site, session, "sandreel-credential get tool")).stdout
    (refused,) = [(await shell(site, session, "sandreel-credential get github")).stderr.decode()]
    assert "(NOT_GRANTED)" in refused
    leased = await of(site, session, c.Leased)
    assert {each.slug for each in leased} == {"tool", "cluster"}
    assert (await of(site, session, c.LeaseRefused))[0].slug == "github"
    await site.client.stop(ORG, session)

    async def gone() -> bool:
        return {each.slug for each in await of(site, session, c.Revoked) if each.reason == "stopped"} == {
            "tool",
            "cluster",
        }

    await until(gone, "what it held was revoked")
    ended = [id for each in await of(site, session, c.Revoked) for id in each.lease_ids]
    assert sorted(ended) == sorted(each.lease_id for each in leased)


async def test_an_exec_that_cannot_ask_is_given_a_variable_and_the_log_says_so(site: Site) -> None:
    session = await site.session()
    refs = {"TOOL": x.SecretRef(role="broker", lease="tool")}
    with pytest.raises(Refused, match=r"SECRET_UNAVAILABLE.*NOT_GRANTED"):
        await site.client.exec(ORG, session, ["true"], secret_env=refs)
    await grant(site, session, "tool")
    handle = await site.client.exec(ORG, session, ["sh", "-c", 'printf %s "$TOOL" | sha256sum'], secret_env=refs)
    done = await handle.collect()
    assert done.stdout.split()[0].decode() == hashlib.sha256(TOKEN.encode()).hexdigest()
    (lease,) = await of(site, session, c.Leased)
    assert (lease.injected, lease.exec) == (True, done.exec_id)


async def test_a_broker_that_is_killed_is_followed_by_one_that_knows_everything(site: Site) -> None:
    session = await site.session()
    await grant(site, session, "tool")
    loop = "for i in $(seq 40); do sandreel-credential run tool -- true && echo got; sleep 0.05; done; true"
    asking = asyncio.ensure_future(shell(site, session, f"setsid -w sh -c '{loop}'"))
    for _ in range(2):
        await asyncio.sleep(0.5)
        await site.kill("broker")
    got = (await asking).stdout.count(b"got")
    assert got > 0
    await site.client.send(ORG, session, c.Revoke(slug="tool"))
    (revoked,) = await of(site, session, c.Revoked)
    assert revoked.lease_ids == sorted(each.lease_id for each in await of(site, session, c.Leased))
    assert (await shell(site, session, "sandreel-credential get tool")).exit_code == 1


async def test_a_token_that_a_killed_broker_has_minted_ends_with_its_grant(
    site: Site, server: GitServer, api: Api
) -> None:
    """The agent has kept it, the broker that made it is dead, and still the revocation is its end."""
    session, before = await site.session(), len(api.made)
    await grant(site, session, "app")
    clone = f"git -c credential.useHttpPath=true {CLONE.partition('git ')[2]}".format(server.url("acme/tool"))
    kept = "sandreel-credential get app acme/tool > /workspace/kept"
    done = await shell(site, session, f"{clone} && cat tool/README && {kept}")
    assert (done.exit_code, done.stdout) == (0, b"acme/tool"), done.stderr
    assert {asked["repositories"][0] for asked in api.asked[before:]} == {"tool"}
    assert server.passwords >= set(api.made[before:]) != set()
    by_hand = f"http://x-access-token:$(cat /workspace/kept)@{server.host}/acme/tool.git"
    again = f"cd /workspace && rm -rf tool && git -c credential.helper= clone -q {by_hand} tool"
    assert (await shell(site, session, again)).exit_code == 0
    await site.kill_and_hold("broker")
    revoking = asyncio.ensure_future(site.client.send(ORG, session, c.Revoke(slug="app"), answer_timeout_s=60))
    await site.release("broker")
    await revoking
    await until(lambda: not server.passwords & set(api.made), "every token was ended where it was made")
    assert (await shell(site, session, again)).exit_code != 0
    notes = [json.loads(line) for line in (await sandreel(site, "audit", "app", "--json")).splitlines()]
    ended = {each["lease"] for each in notes if each["action"] == "ended" and each["session"] == session}
    assert ended == {each.lease_id for each in await of(site, session, c.Leased)}


async def test_without_a_broker_or_its_vault_that_is_said(site: Site) -> None:
    session = await site.session()
    await grant(site, session, "tool")
    await site.kill_and_hold("broker")
    try:
        done = await shell(site, session, "sandreel-credential get tool")
        assert (done.exit_code, done.stdout) == (1, b"")
        assert b"there is no broker" in done.stderr
    finally:
        await site.release("broker")
    await site.kill_and_hold("postgres")
    try:
        done = await shell(site, session, "sandreel-credential get tool")
        assert (done.exit_code, done.stdout) == (1, b"")
        assert b"does not give it now" in done.stderr
    finally:
        await site.release("postgres")
    assert (await shell(site, session, "sandreel-credential run tool -- true")).exit_code == 0


async def test_another_key_is_refused_by_name_and_a_rotation_is_nobody_s_trouble(site: Site) -> None:
    session = await site.session()
    await grant(site, session, "tool")
    said = json.loads(await sandreel(site, "rewrap", "--new-key", "--json"))
    assert (said["rows"] >= 3, said["stuck"], said["retired"]) == (True, 0, 1)
    notes = [json.loads(line) for line in (await sandreel(site, "audit", "tool", "--json")).splitlines()]
    assert [bool(each["by"]) for each in notes if each["action"] == "rewrapped"] == [True], notes
    assert (await shell(site, session, "sandreel-credential run tool -- true")).exit_code == 0
    key_file = site.stack.place.vault_key
    right = key_file.read_text()
    key_file.write_text(base64.b64encode(os.urandom(32)).decode())
    await site.stack.parts["broker"].kill(hold=True)
    site.stack.parts["broker"].release()
    try:
        log = site.stack.place.log("broker")
        await until(lambda: f"sealed with the key {said['key_id']}" in log.read_text(), "it is refused")
    finally:
        key_file.write_text(right)
    await site.stack.parts["broker"].ready(after=0)

    async def works() -> bool:
        return (await shell(site, session, "sandreel-credential run tool -- true")).exit_code == 0

    await until(works, "with the right key it serves again", timeout_s=60)


async def test_an_operator_s_mistakes_are_one_line(site: Site) -> None:
    for words, says in (
        (("put", "BAD"), "SLUG 'BAD' is not"),
        (("put", "x"), "the value is empty"),
        (("put", "x", "--recipe", "git"), "needs the option host"),
        (("put", "x", "--file", "/nowhere"), "--file /nowhere cannot be read"),
        (("delete", "nothing"), "the vault holds no default/nothing"),
        (("grant", "nobody", "tool"), "SESSION_NOT_FOUND"),
        (("audit", "--last", "0"), "--last 0"),
        (("list", "--all", "--org", "x"), "give --org or --all"),
    ):
        said = await sandreel(site, *words, code=2)
        assert (says in said, said.count("\n")) == (True, 1), said
    session = await site.session()
    assert "CREDENTIAL_NOT_FOUND" in await sandreel(site, "grant", session, "nothing", code=2)
    assert "may lease tool until" in await sandreel(site, "grant", session, "tool", "--for", "1h")
    assert (await shell(site, session, "sandreel-credential run tool -- true")).exit_code == 0
    assert "has tool no more" in await sandreel(site, "revoke", session, "tool")
    assert "has neither" in await sandreel(site, "revoke", session, "tool")
    listed = [json.loads(line) for line in (await sandreel(site, "list", "--json")).splitlines()]
    assert [each["slug"] for each in listed] == ["app", "cluster", "github", "tool"]
    assert all(len(each["fingerprint"]) == 16 for each in listed)
    notes = [json.loads(line) for line in (await sandreel(site, "audit", "--json")).splitlines()]
    assert {"put", "read"} <= {each["action"] for each in notes}
    assert all(each["lease"] and each["session"] for each in notes if each["action"] == "read")


async def test_the_audit_says_who_held_what_from_which_cursor_to_which(site: Site) -> None:
    """Of everything above: each lease of the log, with its end, and what the log says that asked."""
    session = await site.session()
    await grant(site, session, "tool")
    done = await shell(site, session, "sandreel-credential get tool >/dev/null")
    await site.client.send(ORG, session, c.Revoke(slug="tool"))
    await site.projected()
    audit = "SELECT exec, program <> '', asked_by, granted_by, fingerprint, held_from, held_to, state, reason"
    (row,) = await site.sql(f"{audit} FROM reel.credential_audit WHERE session = $1 AND kind = 'leased'", session)
    (lease,) = await of(site, session, c.Leased)
    cursors = {event.type: place for place, event in await placed(site, session)}
    assert row[:2] == (done.exec_id, True)
    assert row[3:] == (
        site.client.actor, lease.fingerprint, cursors["credential.leased"], cursors["credential.revoked"], "ended", "asked",
    )  # fmt: skip
    standing = "SELECT state, end_reason, leases FROM reel.credentials WHERE session = $1"
    assert await site.sql(standing, session) == [("ended", "asked", 1)]
    ((leases,),) = await site.sql("SELECT count(*) FROM reel.credential_audit WHERE kind = 'leased'")
    assert leases == sum(b'"credential.leased"' in stored.body for stored in await site.log())


async def placed(site: Site, session: str) -> list[tuple[str, Envelope]]:
    """The events about the session's credentials, each with its cursor."""
    subjects = site.client.subjects(ORG, session)
    epoch = (await site.client.bus.state(subjects.stream)).epoch
    subject = subjects.event("credential")
    return [
        (str(Cursor(epoch, subjects.partition, each.sequence)), decode_event(subject, each.body))
        for each in await site.log()
        if each.subject == subject
    ]


async def test_the_values_are_nowhere_else(site: Site) -> None:
    """Last: in nothing that the tests above have left, on disk or in the environment and the words of any process."""
    await site.projected()
    forms = [form for value in (VALUE, TOKEN) for form in (value.encode(), base64.b64encode(value.encode())[:-4])]

    def holds(path: Path) -> bool:
        try:
            data = path.read_bytes()
        except OSError:
            return False
        return any(form in data for form in forms)

    own = {site.data / "keys.json"}
    files = [path for path in site.data.rglob("*") if path.is_file() and path not in own]
    assert len(files) > 20
    assert [path for path in files if holds(path)] == []
    processes = [path for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid())]
    assert [path for each in processes for path in (each / "environ", each / "cmdline") if holds(path)] == []
    assert all(form not in stored.body for stored in await site.log() for form in forms)
