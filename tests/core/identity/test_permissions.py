"""The table of who may do what, as a table: it says what the design says, and its page has not drifted."""

from __future__ import annotations

import pytest

from docs.permissions_page import PAGE, page
from sandreel_core import jwt
from sandreel_core import permissions as p
from sandreel_core.contract.subjects import PULL
from sandreel_core.errors import Malformed
from sandreel_core.keys import Key, SealingKey, new_key, seal

NAMES = {"org": "acme", "session": "s1", "partition": "0", "feed": "run-1", "key": "UKEY"}


def test_the_page_says_what_the_table_says() -> None:
    assert PAGE.read_text() == page(), "docs/permissions.md has drifted: run `make permissions`"


@pytest.mark.parametrize("user", [*p.USERS, *p.TEMPLATES], ids=lambda user: user.name)
def test_nobody_hears_anothers_answers(user: p.User) -> None:
    if user is p.ADMINISTRATOR:
        return
    heard = user.at(**NAMES).subscribe
    assert [subject for subject in heard if subject.startswith("_")] == ["_INBOX.UKEY.>"]
    assert not [subject for subject in heard if subject.startswith(("*", ">", "$"))]


@pytest.mark.parametrize("user", p.TEMPLATES, ids=lambda user: user.name)
def test_whoever_is_of_one_organisation_names_it_in_everything(user: p.User) -> None:
    assert user.account != "LOG"
    assert not next(account for account in p.ACCOUNTS if account.name == user.account).jetstream
    for subject in (*user.publish, *user.subscribe):
        own = ("{org}", "{key}", "{feed}")
        assert any(name in subject for name in own) or subject == f"{PULL}.*.*", subject


def test_no_session_signs_what_others_decide() -> None:
    events = [subject for subject in p.SESSION.publish if subject.startswith("evt.")]
    assert {subject.split(".")[4] for subject in events} == {"exec", "workspace", "command"}


def test_only_the_broker_decides_about_credentials() -> None:
    """Nobody else writes what was granted, leased and revoked, or hears what sessions ask it for."""
    decides, answers = "evt.0.acme.s1.credential", "req.broker.acme.s1.lease"
    users = [*p.USERS, *p.TEMPLATES]
    assert [user.name for user in users if any(covers(each, decides) for each in user.publish)] == [
        "broker",
        "administrator",
    ]
    assert [user.name for user in users if any(covers(each, answers) for each in user.subscribe)] == [
        "broker",
        "administrator",
    ]


def test_what_is_imported_is_exported() -> None:
    exports = {account.name: [each.subject for each in account.exports] for account in p.ACCOUNTS}
    for account in p.ACCOUNTS:
        for each in account.imports:
            assert any(covers(export, each.subject) for export in exports[each.of]), each


def covers(wide: str, narrow: str) -> bool:
    """Whether everything that matches `narrow` matches `wide`."""
    for at, token in enumerate(wide.split(".")):
        if token == ">":
            return True
        other = narrow.split(".")[at : at + 1]
        if not other or (token != "*" and other != [token]):
            return False
    return len(wide.split(".")) == len(narrow.split("."))


def test_a_jwt_says_who_signed_it_for_whom() -> None:
    account, user = new_key("account"), new_key("user")
    claims = jwt.user(user.public, "ann", account="ABC", publish=[], subscribe=["x"], expires_at_s=20)
    token = jwt.encode(claims, issuer=account.public, issued_at_s=10, sign=account.sign)
    said = jwt.claims_of(token)
    assert (said["iss"], said["sub"], said["iat"], said["exp"]) == (account.public, user.public, 10, 20)
    # Nothing allowed is everything denied, not everything allowed.
    assert said["nats"]["pub"] == {"deny": [">"]}
    assert token == jwt.encode(claims, issuer=account.public, issued_at_s=10, sign=account.sign)
    assert jwt.parse_creds(jwt.creds(token, user.seed)) == (token, user.seed)


@pytest.mark.parametrize("text", ["", "a.b.c", "x", "-----BEGIN NATS USER JWT-----\nx\n------END", "e30.W10.x"])
def test_what_is_no_credential_is_said_without_it(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        jwt.parse_creds(text)
    assert not text or text not in str(caught.value)
    with pytest.raises(Malformed):
        Key(text)


def test_a_sealed_value_is_for_one_key() -> None:
    mine, other = SealingKey(), SealingKey()
    sealed = seal(mine.public, b"value")
    assert mine.open(sealed) == b"value"
    assert sealed != seal(mine.public, b"value")
    for key, text in ((other, sealed), (mine, sealed[:-4] + "AAA="), (mine, "no base64"), (mine, "")):
        with pytest.raises(Malformed):
            key.open(text)
    with pytest.raises(Malformed):
        seal("no key", b"value")
