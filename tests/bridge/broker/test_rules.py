"""Who gets a lease, what is due, what a recipe makes of a value, how often one may ask: the broker's pure rooms."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sandreel_bridge.broker import lease, recipe
from sandreel_bridge.broker.due import BORN_WITH, due
from sandreel_bridge.broker.pace import Bucket, Sayings
from sandreel_core.contract import credential as c
from sandreel_core.credential import SESSION, Credentials, Grant, Held, Out
from sandreel_core.errors import Malformed, Refused
from sandreel_core.session import Phase, Session
from tests.support.samples import AT

LATER, EARLIER = AT + timedelta(hours=1), AT - timedelta(seconds=1)
READY = Session(phase="ready", incarnation=1, boot_id="1-1", public_keys={"seal": "k"}, ttl_s=3600, expires_at=LATER)


def holding(*turns: str, expires_at: object = None, **leases: Out) -> Credentials:
    grant = Grant(expires_at=expires_at)  # type: ignore[arg-type]
    return Credentials(held={"github": Held(grants=dict.fromkeys(turns, grant), leases=leases)})


def code(call: object, *given: object) -> str:
    with pytest.raises(Refused) as refused:
        call(*given)  # type: ignore[operator]
    return refused.value.code


def test_only_a_session_that_runs_in_this_boot_and_has_a_key_gets_a_lease() -> None:
    lease.check_session(READY, "1-1")
    lease.check_session(READY, None)
    assert code(lease.check_session, READY, "1-2") == "BOOT_OVER"
    for phase in ("none", "requested", "stopping", "stopped", "destroyed", "failed"):
        assert code(lease.check_session, Session(phase=phase, boot_id="1-1"), "1-1") == "SESSION_NOT_READY"
    assert code(lease.check_session, Session(phase="ready", boot_id="1-1"), "1-1") == "NO_KEY"


def test_a_turn_s_grant_is_for_its_own_execs() -> None:
    assert lease.grant_for(holding("t1"), "github", "t1-1", AT) == "t1"
    assert lease.grant_for(holding("t1", SESSION), "github", "t1-2", AT) == "t1"
    assert lease.grant_for(holding("t1", SESSION), "github", "other", AT) == SESSION
    for exec in ("t1", "t1-x", "t10-1", "t1-1-1", "other"):
        assert code(lease.grant_for, holding("t1"), "github", exec, AT) == "NOT_GRANTED"
    assert code(lease.grant_for, holding(SESSION), "npm", "e", AT) == "NOT_GRANTED"
    assert code(lease.grant_for, holding(SESSION, expires_at=AT), "github", "e", AT) == "EXPIRED"
    unreadable = Credentials(held=holding(SESSION).held, unreadable="credential.lent")
    assert code(lease.grant_for, unreadable, "github", "e", AT) == "NEWER_CONTRACT"


def test_a_lease_lasts_for_an_operation_or_for_what_an_exec_may_last() -> None:
    def ends(credentials: Credentials, *, injected: bool = False) -> timedelta:
        at = lease.ends_at(credentials, READY, "github", SESSION, AT, injected=injected, lease_s=300)
        return at - AT

    assert ends(holding(SESSION)) == timedelta(seconds=300)
    assert ends(holding(SESSION, expires_at=AT + timedelta(seconds=7))) == timedelta(seconds=7)
    assert ends(holding(SESSION), injected=True) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("phase", "reason"),
    [("stopped", "stopped"), ("failed", "stopped"), ("destroyed", "destroyed"), ("none", "destroyed")],
)
def test_everything_is_revoked_when_nothing_of_a_session_runs(phase: Phase, reason: str) -> None:
    held = holding(SESSION, "t1", a=Out(expires_at=LATER), b=Out(expires_at=LATER, turn="t1"))
    said = due(Session(phase=phase, grants=("github",)), held, AT)
    assert isinstance(said, c.Revoked)
    assert (said.reason, said.ends, said.lease_ids) == (reason, "all", ["a", "b"])
    assert due(Session(phase=phase, grants=("github",)), Credentials(), AT) is None


def test_time_and_the_end_of_a_turn_end_what_is_theirs() -> None:
    out = {"a": Out(expires_at=LATER), "b": Out(expires_at=LATER, turn="t1"), "c": Out(expires_at=AT)}
    over = due(READY, holding(SESSION, "t1", **out), AT, {"t1"})
    assert over == c.Revoked(slug="github", reason="turn_ended", ends="one", turn="t1", lease_ids=["b"])
    late = due(READY, holding(SESSION, **out), AT)
    assert late == c.Revoked(slug="github", reason="expired", ends="none", lease_ids=["c"])
    gone = due(READY, holding(SESSION, expires_at=EARLIER, **out), AT)
    assert gone == c.Revoked(slug="github", reason="expired", ends="one", turn=None, lease_ids=["a", "c"])
    assert due(READY, holding(SESSION), AT) is None
    assert due(Session(phase="stopping"), holding(SESSION), AT) is None


def test_a_session_gets_what_it_was_created_with_unless_it_was_taken_back() -> None:
    born = Session(phase="provisioning", incarnation=2, grants=("github", "npm"))
    assert due(born, Credentials(), AT) == c.Granted(slug="github", purpose=BORN_WITH, incarnation=2)
    assert due(born, holding(SESSION), AT) == c.Granted(slug="npm", purpose=BORN_WITH, incarnation=2)
    taken = Credentials(withdrawn={"github": 2, "npm": 2})
    assert due(born, taken, AT) is None
    assert due(born, Credentials(withdrawn={"github": 1, "npm": 2}), AT) is not None


def test_a_recipe_says_what_a_sandbox_is_told() -> None:
    github = recipe.use_of("github", {}, "github")
    assert (github.variables, github.username) == (("GH_TOKEN", "GITHUB_TOKEN"), "x-access-token")
    assert github.is_for("https", "GitHub.com")
    assert not github.is_for("http", "github.com")
    assert not github.is_for("https", "github.com.evil.example")
    assert recipe.use_of("generic", {}, "my-tool").variables == ("MY_TOOL_TOKEN",)
    assert recipe.use_of("generic", {"variable": "X"}, "my-tool").variables == ("X",)
    file = recipe.use_of("file", {"variable": "NETRC"}, "any")
    assert (file.variables, file.file_variable, file.file_name) == ((), "NETRC", "credential")
    assert not recipe.use_of("generic", {}, "x").is_for("https", "")


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("nothing", {}, "there is no recipe"),
        ("generic", {"hots": "x"}, "takes no option 'hots'"),
        ("git", {}, "needs the option host"),
        ("file", {"variable": "PATH"}, "is not a name that may be set"),
        ("generic", {"variable": "1X"}, "is not a name that may be set"),
        ("git", {"host": "h", "scheme": "ssh"}, "is neither https nor http"),
        ("github-app", {"app_id": "1"}, "needs the option installation_id"),
        ("github-app", {"app_id": "1", "installation_id": "2", "api": "file:///etc"}, "is no address"),
        ("git", {"host": "h", "username": "x\npassword=y"}, "cannot be printed"),
    ],
)
def test_a_recipe_s_options_are_checked(kind: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        recipe.check(kind, options)


def test_every_recipe_can_be_used() -> None:
    for name, each in recipe.RECIPES.items():
        use = recipe.use_of(name, dict.fromkeys(each.required, "X"), "slug")
        assert use.variables or use.file_variable or use.host, name


def test_asking_in_a_loop_has_a_pace() -> None:
    bucket = Bucket(2, 0.5)
    assert [bucket.take("s", 0) for _ in range(3)] == [True, True, False]
    assert bucket.take("other", 0)
    assert [bucket.take("s", 2), bucket.take("s", 2)] == [True, False]


def test_a_refusal_is_said_once_a_minute_with_the_number_of_those_that_were_not() -> None:
    sayings = Sayings()
    assert [sayings.due("s", ("github", "NOT_GRANTED"), at) for at in (0, 1, 59)] == [0, None, None]
    assert sayings.due("s", ("github", "EXPIRED"), 1) == 0
    assert sayings.due("s", ("github", "NOT_GRANTED"), 61) == 2
    said = [sayings.due("s", (f"x{n}", "NOT_GRANTED"), 62) for n in range(100)]
    assert 10 < sum(each is not None for each in said) < 30
