"""Settings: where a value comes from, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from msgspec import Meta

from sandreel_core.errors import Misconfigured
from sandreel_core.settings import Bus, Postgres, Secret, Section, given, load


class Example(Section, frozen=True, kw_only=True):
    section: ClassVar[str] = "spawner"
    bus: Bus
    max_sessions: Annotated[int, Meta(ge=1, le=1000)] = 10
    idle_timeout_s: Annotated[float, Meta(gt=0)] = 1800.0
    dry_run: bool = False
    orgs: tuple[str, ...] = ()
    token: Secret | None = None


class Demanding(Section, frozen=True, kw_only=True):
    section: ClassVar[str] = "bridge"
    listen: str


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sandreel.toml"
    path.write_text(text)
    return path


def test_defaults_need_nothing() -> None:
    settings = load(Example, environ={})
    assert (settings.max_sessions, settings.bus.partitions, settings.bus.reel_max_bytes) == (10, 1, 8 << 30)


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[spawner]\nmax_sessions = 3\nidle_timeout_s = 5\n[bus]\npartitions = 4\n")
    settings = load(Example, environ={"SANDREEL_SPAWNER_MAX_SESSIONS": " 7 "}, path=path)
    assert (settings.max_sessions, settings.idle_timeout_s, settings.bus.partitions) == (7, 5.0, 4)


def test_the_file_is_the_one_that_the_environment_names(tmp_path: Path) -> None:
    path = write(tmp_path, "[spawner]\nmax_sessions = 3\n")
    assert load(Example, environ={"SANDREEL_CONFIG": str(path)}).max_sessions == 3


def test_blank_means_unset(tmp_path: Path) -> None:
    path = write(tmp_path, '[spawner]\ntoken = ""\nmax_sessions = 3\n')
    environ = {"SANDREEL_SPAWNER_MAX_SESSIONS": "  ", "SANDREEL_SPAWNER_TOKEN": "", "SANDREEL_CONFIG": " "}
    settings = load(Example, environ=environ, path=path)
    assert (settings.max_sessions, settings.token) == (3, None)


def test_lists_and_switches_in_variables() -> None:
    environ = {"SANDREEL_SPAWNER_ORGS": "a, b,,c", "SANDREEL_SPAWNER_DRY_RUN": "yes"}
    settings = load(Example, environ=environ)
    assert (settings.orgs, settings.dry_run) == (("a", "b", "c"), True)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SANDREEL_SPAWNER_MAX_SESSION": "1"}, "did you mean SANDREEL_SPAWNER_MAX_SESSIONS?"),
        ({"SANDREEL_SPWANER_MAX_SESSIONS": "1"}, "did you mean SANDREEL_SPAWNER_MAX_SESSIONS?"),
        ({"SANDREEL_BUS_NATS_URL": "nats://a"}, "did you mean SANDREEL_BUS_NATS_URLS?"),
        ({"SANDREEL_QQQQ": "1"}, "SANDREEL_QQQQ is not known; variables begin with"),
        ({"SANDREEL_SPAWNER_MAX_SESSIONS": "0"}, "SANDREEL_SPAWNER_MAX_SESSIONS is '0': expected int >= 1"),
        ({"SANDREEL_SPAWNER_MAX_SESSIONS": "1001"}, "expected int <= 1000"),
        ({"SANDREEL_SPAWNER_MAX_SESSIONS": "many"}, "expected int"),
        ({"SANDREEL_SPAWNER_IDLE_TIMEOUT_S": "nan"}, "SANDREEL_SPAWNER_IDLE_TIMEOUT_S"),
        ({"SANDREEL_SPAWNER_IDLE_TIMEOUT_S": "inf"}, "finite"),
        ({"SANDREEL_SPAWNER_DRY_RUN": "maybe"}, "expected bool"),
        ({"SANDREEL_BUS_NATS_URLS": "http://a"}, "SANDREEL_BUS_NATS_URLS"),
        ({"SANDREEL_SPAWNER_TOKEN_FILE": "/nowhere/token"}, "SANDREEL_SPAWNER_TOKEN_FILE names /nowhere/token"),
        ({"SANDREEL_CONFIG": "/nowhere/sandreel.toml"}, "the settings file /nowhere/sandreel.toml cannot be read"),
    ],
)
def test_a_mistake_in_a_variable_is_one_line_that_helps(environ: dict[str, str], says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(Example, environ=environ)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[spawner]\nmax_sesions = 3\n", "did you mean max_sessions?"),
        ("[spwaner]\nmax_sessions = 3\n", "did you mean spawner?"),
        ("[spawner]\nmax_sessions = '3'\n", "[spawner] max_sessions is '3': expected int, got str"),
        ("[spawner]\nmax_sessions = 0\n", "[spawner] max_sessions is 0: expected int >= 1"),
        ("[bus]\npartitions = 0\n", "[bus] partitions is 0: expected int >= 1"),
        ("spawner = 3\n", "spawner in"),
        ("[spawner\n", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_helps(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(Example, environ={}, path=write(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_section_of_another_role_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "[projections]\nanything = 1\n")
    assert load(Example, environ={"SANDREEL_BROKER_ANYTHING": "1", "SANDREEL_BOOT": "x"}, path=path)


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("geheim\n")
    by_variable = load(Example, environ={"SANDREEL_SPAWNER_TOKEN_FILE": str(tmp_path / "token")})
    by_key = load(Example, environ={}, path=write(tmp_path, '[spawner]\ntoken_file = "token"\n'))
    assert by_variable.token == by_key.token == "geheim"


def test_a_secret_in_two_places_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("geheim\n")
    environ = {"SANDREEL_SPAWNER_TOKEN": "x", "SANDREEL_SPAWNER_TOKEN_FILE": str(tmp_path / "token")}
    with pytest.raises(Misconfigured, match="both set"):
        load(Example, environ=environ)


def test_only_a_secret_has_a_file() -> None:
    with pytest.raises(Misconfigured, match="not known"):
        load(Example, environ={"SANDREEL_SPAWNER_MAX_SESSIONS_FILE": "/x"})


def test_no_secret_is_shown() -> None:
    assert "geheim" not in repr(load(Example, environ={"SANDREEL_SPAWNER_TOKEN": "geheim"}))
    with pytest.raises(Misconfigured) as bad_dsn:
        load(Postgres, environ={"SANDREEL_POSTGRES_DSN": "mysql://me:geheim@host/db"})
    with pytest.raises(Misconfigured) as bad_url:
        load(Bus, environ={"SANDREEL_BUS_NATS_URLS": "nats://me:geheim@host:4222"})
    assert "geheim" not in str(bad_dsn.value) + str(bad_url.value)


def test_what_is_required_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"listen is not set: give \[bridge\] listen or SANDREEL_BRIDGE_LISTEN"):
        load(Demanding, environ={})


def test_given_tells_what_somebody_set(tmp_path: Path) -> None:
    path = write(tmp_path, '[bus]\npartitions = 2\nuser = ""\npassword_file = "x"\n')
    environ = {"SANDREEL_BUS_REPLICAS": "1", "SANDREEL_BUS_NATS_URLS": ""}
    assert given(Bus, environ=environ, path=path) == {"partitions", "password", "replicas"}
