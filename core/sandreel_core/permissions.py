"""Who may do what on NATS: every account, what it shows to the others, and every kind of user. Pure data.

docs/permissions.md is made from it, and so are the accounts and the JWTs that the server checks. Three accounts, because
a user that is confined to its own subjects still has a way into another's: the *server* answers to whatever reply subject
a publish names, past all permissions, and a consumer delivers wherever its maker says. Whoever is not trusted with the
whole log is therefore a user of an account without JetStream, which imports, as services, just the subjects named here:
there a reply goes back into its own account and nowhere else (decision 0017).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from sandreel_core.contract.subjects import DOOR, FEED, PULL

AccountName = Literal["SYSTEM", "LOG", "SESSIONS", "PLATFORM"]
Right = Literal["command", "follow"]
RIGHTS: tuple[Right, ...] = ("command", "follow")

# Every user hears its answers below its own public key, and nobody else may listen there.
INBOX = "_INBOX.{key}.>"
# Consumers whose names everybody knows: those on which roles take commands.
DURABLES = ("spawner", "spawner-refusals", "broker", "bridge")
_PULL = "$JS.API.CONSUMER.MSG.NEXT.*.*"
_PULL_CMD = "$JS.API.CONSUMER.MSG.NEXT.CMD.*"


@dataclass(frozen=True, slots=True)
class Export:
    """A service that other accounts may import. `stream`: it may answer one request with many messages."""

    subject: str
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Import:
    """A service of another account, under a name of this account's own if `local` gives one."""

    subject: str
    of: AccountName
    local: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    name: AccountName
    what: str
    jetstream: bool = False
    exports: tuple[Export, ...] = ()
    imports: tuple[Import, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """One kind of user. `{org}`, `{session}`, `{partition}`, `{feed}` and `{key}` (its public key) are filled in by `at`.

    deny               of what `publish` allows
    responds           it may answer, once, whoever asks it
    max_subscriptions  None: no limit
    """

    name: str
    account: AccountName
    what: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...] = (INBOX,)
    deny: tuple[str, ...] = ()
    responds: bool = False
    max_subscriptions: int | None = None

    def at(self, **names: str) -> User:
        """The user with every name filled in. Raises KeyError for one that is missing. Names are subjects' tokens and
        were checked as such by `ids`, so that none holds a dot or a wildcard."""
        return replace(
            self,
            publish=tuple(subject.format(**names) for subject in self.publish),
            subscribe=tuple(subject.format(**names) for subject in self.subscribe),
        )


# JetStream's own requests (docs.nats.io, "JetStream API"). Reading: a consumer is made for it, pulled from and deleted.
_READ = (
    *("$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.CONSUMER.CREATE.*.*"),
    *("$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.API.CONSUMER.DELETE.*.*"),
)
# Whichever role starts first makes the streams and the durable consumers.
_ENSURE = ("$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.CONSUMER.DURABLE.CREATE.CMD.*")

SYSTEM_ACCOUNT = Account("SYSTEM", "the server's own: takes new versions of accounts, says who is connected")
LOG = Account(
    "LOG",
    "owns the streams; roles and operators are its users",
    jetstream=True,
    exports=(
        # For sessions.
        *(Export("evt.*.*.*.exec.*"), Export("evt.*.*.*.workspace"), Export("evt.*.*.*.command"), Export("hb.*.*")),
        *(Export("req.spawner.*.*.*"), Export("req.broker.*.*.secret"), Export("req.bridge.*.*.secret")),
        Export("req.broker.*.*.lease"),
        # For platform services. Exports must not overlap: sessions import less of the last one.
        *(Export("cmd.*.*.*.*"), Export("req.bridge.*.*.prompt"), Export(f"{DOOR}.*.>"), Export(_PULL, stream=True)),
    ),
    imports=(Import("req.runnerd.*.*.*", "SESSIONS"),),
)
SESSIONS = Account(
    "SESSIONS",
    "runnerds; no JetStream of its own",
    exports=(Export("req.runnerd.*.*.*"),),
    imports=(
        *(Import("evt.*.*.*.exec.*", "LOG"), Import("evt.*.*.*.workspace", "LOG"), Import("evt.*.*.*.command", "LOG")),
        *(Import("hb.*.*", "LOG"), Import("req.spawner.*.*.*", "LOG")),
        *(Import("req.broker.*.*.secret", "LOG"), Import("req.bridge.*.*.secret", "LOG")),
        Import("req.broker.*.*.lease", "LOG"),
        Import(_PULL_CMD, "LOG", local=f"{FEED}.*"),
    ),
)
PLATFORM = Account(
    "PLATFORM",
    "services of organisations; no JetStream of its own",
    imports=(
        *(Import("cmd.*.*.*.*", "LOG"), Import("req.runnerd.*.*.*", "SESSIONS"), Import(f"{DOOR}.*.>", "LOG")),
        Import("req.bridge.*.*.prompt", "LOG"),
        Import(_PULL, "LOG", local=f"{PULL}.*.*"),
    ),
)
ACCOUNTS = (SYSTEM_ACCOUNT, LOG, SESSIONS, PLATFORM)

SPAWNER = User(
    "spawner",
    "LOG",
    "decides about sessions, closes execs that were lost, makes runnerds' command feeds",
    publish=(
        *(
            "evt.*.*.*.session",
            "evt.*.*.*.exec.*",
            "dead.>",
            "slot.>",
            "closed.*.*",
            "home",
            "roles",
            "req.runnerd.*.*.*",
        ),
        "egress.place.*",
        *(*_READ, *_ENSURE, "$JS.API.STREAM.PURGE.SLOTS", "$JS.ACK.CMD.>"),
    ),
    subscribe=(INBOX, "req.spawner.*.*.*", "hb.*.*", f"{DOOR}.*.>"),
    responds=True,
)
PROJECTOR = User("projector", "LOG", "reads everything into the views", publish=(*_READ, *_ENSURE))
BROKER = User(
    "broker",
    "LOG",
    "grants, leases and revokes credentials",
    publish=(
        *("evt.*.*.*.credential", "evt.*.*.*.command", "dead.>", "req.runnerd.*.*.forget"),
        *(*_READ, *_ENSURE, "$JS.ACK.CMD.>"),
    ),
    subscribe=(INBOX, "req.broker.*.*.*"),
    responds=True,
)
BRIDGE = User(
    "bridge",
    "LOG",
    "drives agent turns: has sessions made, starts and steers their programs, writes what they say, keeps their keys",
    publish=(
        *("evt.*.*.*.turn.*", "evt.*.*.*.usage", "evt.*.*.*.command", "dead.>", "turn.>", "prompt.>", "beat.bridge.*"),
        *(
            "cmd.spawner.*.*.*",
            "cmd.runnerd.*.*.*",
            "cmd.bridge.*.*.*",
            "cmd.broker.*.*.*",
            "req.runnerd.*.*.*",
            "req.gateway.*.*.*",
        ),
        *(*_READ, *_ENSURE, "$JS.API.STREAM.PURGE.TURNS", "$JS.API.STREAM.PURGE.PROMPTS", "$JS.ACK.CMD.>"),
    ),
    subscribe=(INBOX, "req.bridge.*.*.*", "beat.bridge.*"),
    responds=True,
)
OPERATOR = User(
    "operator",
    "LOG",
    "a person at the command line: commands to every organisation, requests to every role, reads everything",
    publish=("cmd.*.*.*.*", "req.*.*.*.*", "egress.rules", "egress.rules.>", *_READ),
    subscribe=(INBOX, "hb.*.*"),
    deny=("req.gateway.>",),  # who may have a key minted is the bridge's business alone
)
EGRESS = User(
    "egress",
    "LOG",
    "the proxy by which sessions reach the world: says what it refused, and reads whose address is whose and what is allowed",
    # Sandboxes talk to it, so it has neither the log nor a stream to change: the spawner makes the one that it reads.
    publish=(
        *("evt.*.*.*.egress", "$JS.API.STREAM.INFO.EGRESS", "$JS.API.STREAM.MSG.GET.EGRESS"),
        *("$JS.API.CONSUMER.CREATE.EGRESS.*", "$JS.API.CONSUMER.INFO.EGRESS.*"),
        *("$JS.API.CONSUMER.MSG.NEXT.EGRESS.*", "$JS.API.CONSUMER.DELETE.EGRESS.*"),
    ),
)
GATEWAY = User(
    "gateway",
    "LOG",
    "between sandboxes and model providers: says what each call used, keeps its keys and accounts, answers the bridge",
    # Sandboxes talk to it, so it cannot read the log, and has one stream, its own.
    publish=(
        *("evt.*.*.*.usage", "gateway.>", "$JS.API.STREAM.INFO.GATEWAY", "$JS.API.STREAM.CREATE.GATEWAY"),
        *("$JS.API.STREAM.UPDATE.GATEWAY", "$JS.API.STREAM.PURGE.GATEWAY", "$JS.API.STREAM.MSG.GET.GATEWAY"),
        *("$JS.API.CONSUMER.CREATE.GATEWAY.*", "$JS.API.CONSUMER.INFO.GATEWAY.*"),
        *("$JS.API.CONSUMER.MSG.NEXT.GATEWAY.*", "$JS.API.CONSUMER.DELETE.GATEWAY.*"),
    ),
    subscribe=(INBOX, "req.gateway.*.*.*"),
    responds=True,
)
BACKUP = User(
    "backup",
    "LOG",
    "copies whole streams, and can neither write nor delete nor bring back anything",
    publish=(
        *("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.SNAPSHOT.*"),
        "$JS.SNAPSHOT.ACK.>",
    ),
)
ADMINISTRATOR = User(
    "administrator",
    "LOG",
    "archive, restore and settings of streams: everything that this account has",
    publish=(">",),
    subscribe=(">",),
)
SYSTEM = User(
    "system",
    "SYSTEM",
    "hands the server a new version of an account, so that a revocation counts at once",
    publish=("$SYS.REQ.CLAIMS.UPDATE",),
)

BOOTSTRAP = User(
    "bootstrap",
    "SESSIONS",
    "a runnerd that has no identity yet, or none that is valid: it may ask for one",
    publish=("req.spawner.{org}.{session}.bootstrap", "req.spawner.{org}.{session}.renew"),
    max_subscriptions=8,
)
SESSION = User(
    "session",
    "SESSIONS",
    "the runnerd of one boot of one session",
    publish=(
        *("evt.{partition}.{org}.{session}.exec.*", "evt.{partition}.{org}.{session}.workspace"),
        *("evt.{partition}.{org}.{session}.command", "hb.{org}.{session}"),
        *("req.spawner.{org}.{session}.feed", "req.spawner.{org}.{session}.log", "req.spawner.{org}.{session}.renew"),
        *("req.broker.{org}.{session}.secret", "req.bridge.{org}.{session}.secret"),
        "req.broker.{org}.{session}.lease",
        f"{FEED}.{{feed}}",
    ),
    subscribe=(INBOX, "req.runnerd.{org}.{session}.*"),
    responds=True,
    max_subscriptions=64,
)

# What may be asked of a runnerd; `drain`, `lift` and `hold` are the spawner's, `forget` is the broker's.
_ASK = ("health", "keys", "list_files", "read_file", "write_file", "delete_file", "fetch_file")
# Readers at a time, by one connection: one subscription each.
_READERS = 4096
COMMAND = User(
    "command",
    "PLATFORM",
    "a service of one organisation: commands, keystrokes, files and long prompts",
    publish=("cmd.*.{org}.*.*", "req.bridge.{org}.*.prompt", *(f"req.runnerd.{{org}}.*.{verb}" for verb in _ASK)),
    max_subscriptions=_READERS,
)
FOLLOW = User(
    "follow",
    "PLATFORM",
    "a service of one organisation: reads the log of its sessions",
    publish=(f"{DOOR}.{{org}}.>", f"{PULL}.*.*"),
    deny=tuple(f"{PULL}.*.{name}" for name in DURABLES),
    max_subscriptions=_READERS,
)


def platform(rights: Iterable[Right]) -> User:
    """The user with all these rights. Raises KeyError for one that there is not."""
    users = [{"command": COMMAND, "follow": FOLLOW}[right] for right in rights]
    return replace(
        users[0],
        name="+".join(user.name for user in users),
        publish=tuple(subject for user in users for subject in user.publish),
        deny=tuple(subject for user in users for subject in user.deny),
    )


USERS = (SPAWNER, PROJECTOR, BROKER, BRIDGE, EGRESS, GATEWAY, OPERATOR, BACKUP, ADMINISTRATOR, SYSTEM)
"""Those of an installation: one of each, with credentials of its own."""
TEMPLATES = (BOOTSTRAP, SESSION, COMMAND, FOLLOW)
"""Those that are made for one session or one organisation."""
