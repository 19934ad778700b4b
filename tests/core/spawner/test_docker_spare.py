"""A spare is a sandbox like any other, short of whose it is; what it is called afterwards says that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandreel_core.contract.session import Limits
from sandreel_core.errors import Misconfigured
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare as spare
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_spare import Warm
from tests.core.spawner.test_docker_plan import SPEC, TERMS, body

TOKEN = "0123456789abcdef"
WARM = Warm("acme", "default", None, 2)
FRESH = replace(SPEC, incarnation=1, boot=1, fresh=True)


def test_it_differs_from_a_sessions_container_in_what_says_whose_it_is_alone() -> None:
    mine = spare.container(TERMS, WARM, TOKEN, image="sandreel-session-slim:1", spool_bytes=SPEC.settings.spool_bytes)
    theirs = body()
    for each in (mine, theirs):
        del each["Labels"]
    env = theirs["Env"]
    theirs["Env"] = [line for line in env if not line.startswith("SANDREEL_BOOT=")]
    assert len(theirs["Env"]) == len(env) - 1
    mine["HostConfig"]["Mounts"][0]["Source"] = theirs["HostConfig"]["Mounts"][0]["Source"]
    assert mine == theirs


def test_a_name_says_whose_it_has_become_and_no_other_name_does() -> None:
    labels = spare.labels(TERMS, WARM, TOKEN)
    for session in ("one", "a-0123456789abcdef-1-1", "spare"):
        key = Key("acme", session)
        became = spare.named(labels, plan.container_name("ours", key, "2-13"))
        assert (became[plan.SESSION], became[plan.BOOT], became[plan.INCARNATION]) == (session, "2-13", "2")
        assert became[spare.SPARE] == TOKEN
    foreign = plan.container_name("ours", Key("umbrella", "one"), "1-1")
    assert spare.named(labels, foreign) == labels, "of another organisation"
    assert spare.named(labels, spare.container_name("ours", TOKEN)) == labels
    assert spare.named(labels, plan.container_name("theirs", Key("acme", "one"), "1-1")) == labels
    own = plan.session_labels(TERMS, SPEC)
    assert spare.named(own, "whatever") == own


@pytest.mark.parametrize(
    ("text", "warm"),
    [
        ("acme/default=2", Warm("acme", "default", None, 2)),
        ("acme/agent/host:5000/x/y:1.2=16", Warm("acme", "agent", "host:5000/x/y:1.2", 16)),
    ],
)
def test_a_pool_is_told_in_one_word(text: str, warm: Warm) -> None:
    assert Warm.read(text) == warm


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("acme/default", "no organisation's id"),
        ("a b/default=1", "'a b' is no organisation's id"),
        ("acme=1", "profile '' is neither default nor agent"),
        ("acme/root=1", "profile 'root' is neither"),
        ("acme/agent/-x=1", "'-x' is no name of an image"),
        ("acme/default=0", "'0' is no count from 1 to 16"),
        ("acme/default=17", "'17' is no count"),
        ("acme/default=many", "'many' is no count"),
    ],
)
def test_what_is_no_pool_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as wrong:
        Warm.read(text)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["acme/default=9", "acme/agent=8"], "17 spares for org acme, and its network has room for 16"),
        ([f"org{n}/default=13" for n in range(5)], "65 spares in all"),
        (["acme/default=1", "acme/default=2"], "names a pool twice"),
    ],
)
def test_pools_have_bounds(words: list[str], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        spare.check([Warm.read(text) for text in words])
    spare.check([Warm.read(words[0])])


def test_a_spare_serves_the_first_boot_of_a_session_that_asks_for_nothing_of_its_own() -> None:
    assert WARM.fits(FRESH)
    assert WARM.fits(replace(FRESH, limits=Limits(execs=9)))
    assert not WARM.fits(replace(FRESH, fresh=False)), "never for a resume"
    assert not WARM.fits(replace(FRESH, boot=2)), "nor for that of one that was never ready"
    for other in (
        {"key": Key("umbrella", "one")},
        {"profile": "agent"},
        {"image": "mine:1"},
        {"limits": Limits(cpus=1)},
        {"limits": Limits(disk_bytes=1 << 30)},
    ):
        assert not WARM.fits(replace(FRESH, **other))
