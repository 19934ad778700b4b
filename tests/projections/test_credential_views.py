"""Who may have which credential, and who held what from where to where in the log: as SQL tells it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandreel_core.bus.port import Stored
from sandreel_core.contract import credential as c
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections import credential_log
from sandreel_projections.change import change
from sandreel_projections.registry import sources
from tests.projections.test_projector import fetch
from tests.projections.test_rebuild import rebuilding
from tests.projections.test_views import project
from tests.support import samples
from tests.support.credential_story import SOON
from tests.support.script import message
from tests.support.story import Story, tell


@pytest.fixture
async def told(database: str) -> Story:
    bus, [story] = await tell("default")
    await project(bus, database)
    return story


async def events(dsn: str) -> list[dict[str, Any]]:
    return await fetch(dsn, "SELECT * FROM reel.credential_log ORDER BY sequence")


async def test_each_grant_says_who_gave_it_how_it_stands_and_how_often_it_was_used(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT * FROM reel.credentials ORDER BY granted_at, granted_cursor")
    rows.sort(key=lambda row: int(row["granted_cursor"].rpartition(":")[2]))
    assert [(row["slug"], row["turn"], row["state"], row["end_reason"], row["leases"]) for row in rows] == [
        ("github", None, "replaced", None, 2),
        ("github", "t-1", "ended", "turn_ended", 1),
        ("github", None, "ended", "asked", 1),
        ("github", "t-2", "standing", None, 1),
        ("npm", None, "expired", None, 0),
    ]
    born, turn = rows[0], rows[1]
    assert (born["incarnation"], born["granted_by"]) == (1, None)
    assert (turn["granted_by"], turn["command_id"], turn["purpose"]) == ("ann", told.commands["grant"], "push the fix")
    said = await events(database)
    assert (born["ended_cursor"], turn["ended_cursor"]) == (said[7]["cursor"], said[5]["cursor"])


async def test_the_audit_tells_who_held_what_from_which_cursor_to_which(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT * FROM reel.credential_audit WHERE kind = 'leased' ORDER BY lease_id")
    at = {each["lease_id"]: each["cursor"] for each in await events(database) if each["kind"] == "leased"}
    ends = [each["cursor"] for each in await events(database) if each["kind"] == "revoked"]
    assert [(row["lease_id"], row["held_from"], row["held_to"], row["state"], row["reason"]) for row in rows] == [
        ("l-1", at["l-1"], ends[0], "ended", "turn_ended"),
        ("l-2", at["l-2"], ends[1], "ended", "asked"),
        ("l-3", at["l-3"], None, "expired", None),
        ("l-4", at["l-4"], ends[1], "ended", "asked"),
        ("l-5", at["l-5"], None, "held", None),
    ]
    first = rows[0]
    assert (first["asked_by"], first["granted_by"], first["turn"], first["exec"]) == ("ann", "ann", "t-1", "t-1-1")
    assert (first["pid"], first["program"], first["purpose"]) == (77, "git-credential-sandreel < git", "git push")
    assert (first["fingerprint"], first["version"], first["injected"], first["minted"]) == ("f-1", 3, False, False)
    assert rows[1]["granted_by"] is None, "nobody sent a command for what the session was created with"


async def test_refusals_and_revocations_are_in_the_audit_too(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT * FROM reel.credential_audit WHERE kind <> 'leased' ORDER BY at, cursor")
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("granted"), kinds.count("refused"), kinds.count("revoked")) == (5, 1, 2)
    [refused] = [row for row in rows if row["kind"] == "refused"]
    assert (refused["slug"], refused["code"], refused["message"], refused["unsaid"]) == (
        "npm", "NO_GRANT", "there is no grant", 4,
    )  # fmt: skip
    [outlived] = [row for row in rows if row["kind"] == "outlived"]
    assert (outlived["lease_id"], outlived["expires_at"], outlived["held_from"]) == ("l-2", SOON, None)
    [taken] = [row for row in rows if row["reason"] == "asked"]
    assert (taken["lease_ids"], taken["ends"], taken["held_from"]) == (["l-2", "l-4"], "all", None)


async def test_law_5_rebuilt_from_the_log_the_audit_is_the_same(told: Story, database: str) -> None:
    before = await fetch(database, "SELECT * FROM reel.credential_audit ORDER BY at, cursor")
    async with asyncio.timeout(60):
        outcome = await rebuilding(told.bus, database, sources=sources(1), views=("credential_audit",)).run()
    assert {each.table: each.differing for each in outcome.compared} == {"credential_log": 0, "turns": 0}
    assert outcome.swapped
    assert await fetch(database, "SELECT * FROM reel.credential_audit ORDER BY at, cursor") == before


def test_every_event_about_a_credential_has_a_row_and_answers_to_commands_have_none() -> None:
    subjects = SessionSubjects("acme", "s1")
    for event in samples.EVENTS:
        key = samples.KEYS.get(event.aggregate, "")
        made = change(Stored(*_placed(message(subjects, event, key=key))), "e1")
        assert (credential_log.record(made) is not None) is isinstance(event, c.CredentialEvent)


def _placed(made: tuple[str, bytes]) -> tuple[str, int, bytes, int]:
    subject, body = made
    return subject, 1, body, 10**18
