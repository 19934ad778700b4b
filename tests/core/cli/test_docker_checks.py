"""What becomes of what an engine has: never of another installation's, never of what is young, never of files by mistake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sandreel_core.cli.docker_checks import CACHE_STAYS, judge, lines
from sandreel_core.session import Session
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_census import Object, Sort

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
ONE = Key("acme", "one")


def made(
    kind: str, sort: Sort = "container", *, key: Key | None = None, installation: str = "ours", age_s: float = 1e4
) -> Object:
    created = NOW - timedelta(seconds=age_s)
    return Object(
        sort=sort,
        name=f"a-{kind}",
        kind=kind,
        installation=installation,
        org="acme",
        key=key,
        state="",
        created_at=created,
    )


SESSION, WORKSPACE = made("session", key=ONE), made("workspace", "volume", key=ONE)


@pytest.mark.parametrize(
    ("each", "known", "would"),
    [
        (SESSION, Session(phase="ready", incarnation=1), None),
        (SESSION, Session(phase="stopped", incarnation=1), None),
        (SESSION, Session(phase="destroyed", incarnation=1), "would be deleted"),
        (WORKSPACE, Session(phase="destroyed", incarnation=1), "would be deleted"),
        (SESSION, None, "would be ended, its files are kept"),
        (WORKSPACE, None, "kept: an empty log proves nothing"),
        (made("session", key=ONE, age_s=1), None, None),
        (made("session", key=ONE, installation="theirs"), None, "left alone"),
        (made("hand"), None, "would be removed"),
        (made("org", "network"), None, "would be removed"),
        (made("cache", "volume"), None, CACHE_STAYS),
        (made("service"), None, None),
        (made("front", "network"), None, None),
    ],
)
def test_what_becomes_of_it(each: Object, known: Session | None, would: str | None) -> None:
    found = judge(each, [each], {ONE: known} if known is not None else {}, "ours", NOW)
    assert (found.would if found is not None else None) == would


def test_a_pool_is_no_orphan_and_what_is_left_of_one_is() -> None:
    waiting = replace(made("session"), spare="t", state="running")
    files = replace(made("workspace", "volume"), spare="t")
    network, now = made("org", "network"), NOW
    for each in (waiting, files, network):
        assert judge(each, [waiting, files, network], {}, "ours", now) is None
    ended = replace(waiting, state="exited")
    assert (found := judge(ended, [ended], {}, "ours", now)) is not None
    assert found.would == "would be removed"
    # Taken: by its name the container has a session, and the session's own volume says where the files are.
    taken = replace(SESSION, spare="t")
    says = replace(WORKSPACE, files=files.name)
    known = {ONE: Session(phase="stopped", incarnation=1)}
    for found_now in ([taken, files], [says, files]):
        assert all(judge(each, found_now, known, "ours", now) is None for each in found_now)
    assert (found := judge(files, [files], known, "ours", now)) is not None
    assert "if it is empty, else kept" in found.would


def test_the_network_of_an_org_with_a_session_is_in_use() -> None:
    network = made("org", "network")
    assert judge(network, [network, WORKSPACE], {}, "ours", NOW) is None


def test_a_cache_is_its_orgs_while_the_log_knows_a_session_of_it() -> None:
    cache = made("cache", "volume")
    assert judge(cache, [cache], {}, "ours", NOW, busy={"acme"}) is None
    assert judge(cache, [cache], {}, "ours", NOW, busy={"umbrella"}) is not None


def test_nothing_is_a_line_as_well() -> None:
    assert lines([]) == ["everything that the engine has belongs to a session"]
    found = judge(SESSION, [SESSION], {}, "ours", NOW)
    assert found is not None
    assert "the log knows no session acme/one" in lines([found])[1]
