"""Ids, subjects and cursors: what is built can be parsed, what is not in order is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.contract import subjects as s
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.cursors import Cursors
from sandreel_core.errors import Malformed
from sandreel_core.ids import check_command_id, check_id, check_org, uuid7, uuid7_unix_ms

ALPHABET = "ABCxyz019_-"
IDS = st.text(ALPHABET, min_size=1, max_size=64)
ORGS = st.text(ALPHABET, min_size=1, max_size=128)
NAMED = st.sampled_from([*((a, "") for a in s.SINGLE), *((a, "k-1") for a in s.KEYED)])


@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_carries_its_time(unix_ms: int, random: bytes) -> None:
    made = uuid7(unix_ms, random)
    assert check_command_id(made) == made
    assert uuid7_unix_ms(made) == unix_ms


@given(ORGS, IDS, st.integers(1, 64), NAMED)
def test_event_subjects_parse_back(org: str, session: str, partitions: int, named: tuple[str, str]) -> None:
    built = s.SessionSubjects(org, session, partitions)
    subject = built.event(*named)
    assert s.parse_event_subject(subject) == s.EventSubject(built.partition, org, session, *named)
    assert s.stream_of(subject) == built.stream == s.reel(built.partition)
    assert 0 <= built.partition < partitions


@given(ORGS, IDS, st.sampled_from(s.ROLES))
def test_command_subjects_parse_back(org: str, session: str, role: str) -> None:
    command_id = uuid7(1, bytes(10))
    subject = s.SessionSubjects(org, session).command(role, command_id)
    assert s.parse_command_subject(subject) == s.CommandSubject(role, org, session, command_id)
    assert s.stream_of(subject) == s.CMD


@pytest.mark.parametrize("bad", ["", "a.b", "a*", ">", "a b", "a\n", "ü", "x" * 129, "a/b", "a\0"])
def test_names_that_would_reach_other_subjects_are_refused(bad: str) -> None:
    for call in (
        lambda: check_org(bad),
        lambda: check_id("session", bad),
        lambda: s.SessionSubjects(bad, "s"),
        lambda: s.SessionSubjects("o", bad),
        lambda: s.SessionSubjects("o", "s").exec(bad),
    ):
        with pytest.raises(Malformed):
            call()


@pytest.mark.parametrize(
    "subject",
    [
        "evt.x.o.s.session",
        "evt.0.o.s",
        "evt.0.o.s.session.extra",
        "evt.0.o.s.exec",
        "evt.0.o.s.exec.a.b",
        "evt.0.o.s.party",
        "cmd.runnerd.o.s.1",
        "hb.o.s",
        "",
    ],
)
def test_what_is_no_event_subject_is_malformed(subject: str) -> None:
    with pytest.raises(Malformed):
        s.parse_event_subject(subject)


@given(st.text("0123456789abcdefxyz", min_size=1, max_size=32), st.integers(0, 9999), st.integers(0, 10**18))
def test_cursor_round_trips_and_knows_its_epoch(epoch: str, partition: int, sequence: int) -> None:
    cursor = Cursor(epoch, partition, sequence)
    assert Cursor.parse(str(cursor)) == cursor
    assert cursor.check(epoch) == sequence
    with pytest.raises(Malformed, match="epoch"):
        cursor.check(epoch + "0")


@pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "a:1:-1", "a:1:2\n", "A:1:2", "a:1:99999999999999999999"])
def test_what_is_no_cursor_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Cursor.parse(text)


def test_a_place_in_several_partitions_reads_as_it_is_written() -> None:
    one, two = Cursor("e1", 0, 7), Cursor("f2", 3, 0)
    cursors = Cursors([two, one])

    assert str(cursors) == "e1:0:7,f2:3:0"
    assert Cursors.parse(str(cursors)) == cursors
    assert Cursors.parse("e1:0:7") == one
    assert (cursors.of(0), cursors.of(3)) == (one, two)
    with pytest.raises(Malformed, match="partition 1"):
        cursors.of(1)


@pytest.mark.parametrize(
    "text", ["e1:0:7,", "e1:0:7,e1:0:8", ",", "e1:0:7, e1:1:8", ",".join(f"e:{p}:1" for p in range(1025))]
)
def test_what_is_no_place_in_several_partitions_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Cursors.parse(text)
