"""Writes docs/permissions.md from `sandreel_core.permissions`: `make permissions`. A test fails when the page has drifted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sandreel_core import permissions as p

PAGE = Path(__file__).with_name("permissions.md")

_HEAD = """\
# Who may do what on NATS

Made from `core/sandreel_core/permissions.py`, which the server's accounts and every credential are made from too. NATS runs in
operator mode: every user is a JWT that its account has signed, for a key that the user alone has. `{key}` is that public key: everybody
hears answers below it, and nobody else may listen there. `*` is one token, `>` is all that follow. What is not named here, the server refuses.

Whoever is not trusted with the whole log is in an account without JetStream, which imports a few subjects as services. So the reply
subject that a message names leads back into that account, and neither an acknowledgement nor an answer nor a delivery can be made to
land in the log ([decision 0017](decisions/0017-accounts-and-identities.md)).
"""

_ENFORCED = """\
## What is enforced where

| what | where |
|---|---|
| a service commands and reads its own organisation alone | the server: the org is a token of every subject that it may publish |
| a reader's filters, and a message that is asked for by its number | the spawner (`bus/jetstream_door.py`), which asks JetStream anew in its own name; pulling is then between reader and server |
| a session writes its own execs, workspace and outcomes | the server |
| what a session reads: the commands of its own boot | the spawner makes the consumer; the server lets that session pull from it and no other |
| a bootstrap token is for one key; a boot that is over gets no identity | the spawner, from what stands in `session.ready` and behind it |
| an identity has ended or was revoked | the server, which closes the connection |
| the subject inside a message is the one that it was stored on; org and session exist; quotas per owner | every role that reads it |
| `actor` in a command | nobody: a service says in whose name it asks. Which organisation it acts for is the server's word |
| that somebody asked for what arrives where a runnerd takes requests | that runnerd: what a stream delivers there, because a pull named it as its reply, bears the subject that it was stored on |
| that processes of one session are kept apart | nobody: they are one user. A secret that one exec has is readable in its environment by the others of that session |
"""


def page() -> str:
    """The whole of docs/permissions.md."""
    parts = [_HEAD, "## Accounts", ""]
    for account in p.ACCOUNTS:
        parts += [f"### {account.name}", "", f"{account.what[0].upper()}{account.what[1:]}.", ""]
        if account.exports:
            parts += ["| lets others import | answers |", "|---|---|"]
            parts += [f"| `{each.subject}` | {'many' if each.stream else 'one'} |" for each in account.exports]
            parts.append("")
        if account.imports:
            parts += ["| imports | of | as |", "|---|---|---|"]
            parts += [
                f"| `{each.subject}` | {each.of} | {f'`{each.local}`' if each.local else 'the same'} |"
                for each in account.imports
            ]
            parts.append("")
    parts += ["## Users of an installation", "", "One of each, with a .creds file of its own.", ""]
    parts += [line for user in p.USERS for line in _user(user)]
    parts += ["## Users of one session or one organisation", ""]
    parts += [line for user in p.TEMPLATES for line in _user(user)]
    return "\n".join([*parts, _ENFORCED])


def _user(user: p.User) -> list[str]:
    lines = [f"### {user.name}", "", f"In {user.account}: {user.what}.", ""]
    lines += [f"- publishes {_list(user.publish)}"]
    if user.deny:
        lines.append(f"- but not {_list(user.deny)}")
    lines.append(f"- hears {_list(user.subscribe)}")
    if user.responds:
        lines.append("- answers, once, whoever asks it")
    if user.max_subscriptions is not None:
        lines.append(f"- has {user.max_subscriptions} subscriptions at most")
    return [*lines, ""]


def _list(subjects: Sequence[str]) -> str:
    return ", ".join(f"`{subject}`" for subject in subjects)


if __name__ == "__main__":
    PAGE.write_text(page())
