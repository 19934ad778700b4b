"""What an operator may get wrong about identities: one line each, that names the setting and never its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandreel_core.bus.credentials import Creds, Password, identity_of
from sandreel_core.embedded.authority import Authority
from sandreel_core.errors import Misconfigured
from sandreel_core.keys import new_key
from sandreel_core.settings import Bus, load
from sandreel_core.spawner.settings import Settings, issuer


def test_a_boot_gets_an_identity_where_there_is_who_signs_it() -> None:
    account, key = new_key("account"), new_key("account")
    assert issuer(Settings(data="/d")) is None
    found = issuer(Settings(data="/d", sessions_account=account.public, sessions_key=key.seed, runnerd_identity_s=60))
    assert found is not None
    assert (found.account, found.key.public, found.lasts_s) == (account.public, key.public, 60)


@pytest.mark.parametrize("given", [{"sessions_account": "A" + "A" * 55}, {"sessions_key": "hush"}])
def test_half_of_it_is_said(given: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="belong together") as caught:
        issuer(Settings(data="/d", **given))  # type: ignore[arg-type]
    assert "hush" not in str(caught.value)


def test_a_key_that_is_none_is_said_without_it() -> None:
    with pytest.raises(Misconfigured, match="sessions_key") as caught:
        issuer(Settings(data="/d", sessions_account="A" * 56, sessions_key="hush"))
    assert "hush" not in str(caught.value)


def test_credentials_count_for_more_than_a_password() -> None:
    assert isinstance(identity_of(Bus(user="u", password="p")), Password)
    with pytest.raises(Misconfigured, match=r"\[bus\] creds") as caught:
        identity_of(Bus(user="u", password="p", creds="hush, no credentials"))
    assert "hush" not in str(caught.value)


def test_a_creds_file_is_read_as_any_secret(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "identity")
    authority.open()
    path = authority.creds_file("operator")
    assert path.stat().st_mode & 0o777 == 0o600
    found = load(Bus, environ={"SANDREEL_BUS_CREDS_FILE": str(path)})
    assert isinstance(identity_of(found), Creds)
    assert "SUA" not in repr(found)
    assert identity_of(found).name == "operator"


def test_keys_are_made_once_and_kept_and_a_lost_file_is_said(tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    with pytest.raises(Misconfigured, match="sandreel up"):
        Authority(directory).account_key("LOG")
    first = Authority(directory)
    first.open()
    kept = {path.name: path.read_text() for path in directory.iterdir()}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [directory, *directory.iterdir()])
    again = Authority(directory)
    again.open()
    assert again.account_key("LOG") == first.account_key("LOG")
    assert (directory / "authority.json").read_text() == kept["authority.json"]
    (directory / "authority.json").write_text("{")
    with pytest.raises(Misconfigured, match=r"authority\.json holds the installation's keys"):
        Authority(directory).open()
