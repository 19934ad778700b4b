"""Settings: one frozen type per role, out of a TOML file and `SANDREEL_*` variables.

A field `max_sessions` of a type whose section is `spawner` is `max_sessions` under `[spawner]` in the file
that `SANDREEL_CONFIG` names, and `SANDREEL_SPAWNER_MAX_SESSIONS` in the environment, which wins. Blank means
unset. A secret may stand in a file of its own: `password_file`, `SANDREEL_BUS_PASSWORD_FILE`.
A key or a variable that nobody knows is an error that names the nearest right one.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from sandreel_core.errors import Misconfigured

CONFIG = "SANDREEL_CONFIG"
# Every section that any role reads: a role cannot see the others' types, but must notice `[spwaner]`.
SECTIONS = (
    "bus", "postgres", "log", "spawner", "runnerd", "projections", "broker", "bridge", "gateway", "egress", "client", "docker", "stack", "health",
)  # fmt: skip
# Not settings: markers that sandreel sets for what it starts (contract/boot.py), and the command line's own.
_MARKERS = (
    *(CONFIG, "SANDREEL_BOOT", "SANDREEL_EXEC_ID", "SANDREEL_LEASES", "SANDREEL_ORG", "SANDREEL_PROGRAMS"),
    "SANDREEL_PYTHON",
)
_PREFIX = "SANDREEL_"

GIB = 1 << 30

Secret = Annotated[str, Meta(extra={"secret": True})]
NatsUrl = Annotated[str, Meta(pattern=r"^(nats|tls|wss?)://[^@\s]+$")]  # user and password stand beside it
Port = Annotated[int, Meta(ge=1, le=65535)]
T = TypeVar("T", bound="Section")


class Section(Struct, frozen=True, kw_only=True):
    """A settings type. A subclass names its section; a field whose type is a Section is loaded from its own."""

    section: ClassVar[str]

    def __repr__(self) -> str:
        """Without the secrets: settings end up in tracebacks."""
        shown = ", ".join(
            f"{name}={'…' if name in _secrets(type(self)) and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({shown})"


class Bus(Section, frozen=True, kw_only=True):
    """Where NATS is and what the installation's streams are like. The same for every role, and for clients."""

    section: ClassVar[str] = "bus"
    nats_urls: Annotated[tuple[NatsUrl, ...], Meta(min_length=1, max_length=16)] = ("nats://127.0.0.1:4222",)
    user: str | None = None
    password: Secret | None = None
    # The text of a NATS .creds file (usually `creds_file`): counts for more than user and password.
    creds: Secret | None = None
    # Fixed for the life of an installation (design §3).
    partitions: Annotated[int, Meta(ge=1, le=4096)] = 1
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    reel_max_bytes: Annotated[int, Meta(ge=1 << 20)] = 8 * GIB
    cmd_max_bytes: Annotated[int, Meta(ge=1 << 20)] = GIB
    dead_max_bytes: Annotated[int, Meta(ge=1 << 16)] = 64 << 20
    # At least two hours, because commands are stale an hour before they are gone.
    cmd_max_age_s: Annotated[int, Meta(ge=7200)] = 7 * 86400
    duplicate_window_s: Annotated[int, Meta(ge=1, le=3600)] = 120
    # How long a role waits for NATS when it starts; 0: for ever.
    connect_timeout_s: Annotated[float, Meta(ge=0)] = 0


class Postgres(Section, frozen=True, kw_only=True):
    """Where the views are. `dsn` is a `postgresql://user:password@host:port/database`; it holds a password."""

    section: ClassVar[str] = "postgres"
    dsn: Annotated[Secret, Meta(pattern=r"^postgres(ql)?://")] | None = None


class Logging(Section, frozen=True, kw_only=True):
    section: ClassVar[str] = "log"
    level: Annotated[str, Meta(pattern=r"^(?i:debug|info|warning|error)$")] = "INFO"


class HealthListen(Section, frozen=True, kw_only=True):
    """Where a role serves `/healthz` and `/metrics`, `HOST:PORT`; absent: nowhere. Whoever can reach it can read it:
    it holds no id and no secret, but keep it inside. `sandreel up` gives every role a port of its own on loopback."""

    section: ClassVar[str] = "health"
    listen: Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:]+\]|[^\[\]:\s]+):[0-9]{1,5}$")] | None = None


def load(type: type[T], *, environ: Mapping[str, str] | None = None, path: Path | None = None) -> T:
    """One frozen `type`, from `path` (else the file that `SANDREEL_CONFIG` names, else none) and `environ`.

    Raises Misconfigured with one line that says which key, what is wrong with it, and what the limit is.
    A secret's value never stands in it.
    """
    env = os.environ if environ is None else environ
    if path is None and env.get(CONFIG, "").strip():
        path = Path(env[CONFIG].strip())
    tables = _read(path)
    _check_variables(env)
    return _load(type, env, tables, path)


def given(type: type[Section], *, environ: Mapping[str, str] | None = None, path: Path | None = None) -> frozenset[str]:
    """Which of the section's keys somebody has set, in the file or the environment. Raises as `load`."""
    env = os.environ if environ is None else environ
    if path is None and env.get(CONFIG, "").strip():
        path = Path(env[CONFIG].strip())
    prefix = f"{_PREFIX}{type.section.upper()}_"
    inside = {key for key, value in _read(path).get(type.section, {}).items() if value != ""}
    outside = {name[len(prefix) :].lower() for name, value in env.items() if name.startswith(prefix) and value.strip()}
    return frozenset(name.removesuffix("_file") for name in inside | outside)


def _load(type: type[T], env: Mapping[str, str], tables: Mapping[str, dict[str, Any]], path: Path | None) -> T:
    nested = {field.name: field.type for field in msgspec.structs.fields(type) if _is_section(field.type)}
    types = {field.name: field.type for field in msgspec.structs.fields(type) if field.name not in nested}
    names = list(types)
    secrets = _secrets(type)
    raw: dict[str, Any] = {name: _load(inner, env, tables, path) for name, inner in nested.items()}

    table = tables.get(type.section, {})
    keys = [*names, *(f"{name}_file" for name in secrets)]
    _check_known(table, keys, lambda key: f"[{type.section}] {key} in {path}")
    origin: dict[str, str] = {}
    for name in names:
        if table.get(name, "") != "":
            raw[name], origin[name] = table[name], f"[{type.section}] {name}"
        elif table.get(f"{name}_file", "") != "" and name in secrets:
            origin[name] = f"[{type.section}] {name}_file"
            base = path.parent if path else Path()
            raw[name] = _secret(base / str(table[f"{name}_file"]), origin[name])

    prefix = f"{_PREFIX}{type.section.upper()}_"
    known = [prefix + key.upper() for key in keys]
    _check_known([name for name in env if name.startswith(prefix)], known, lambda name: f"variable {name}")
    for name in names:
        variable = prefix + name.upper()
        value, file = env.get(variable, "").strip(), env.get(f"{variable}_FILE", "").strip()
        if value and file and name in secrets:
            raise Misconfigured(f"{variable} and {variable}_FILE are both set; keep one")
        if value:
            raw[name], origin[name] = _parse(value, types[name]), variable
        elif file and name in secrets:
            raw[name], origin[name] = _secret(Path(file), f"{variable}_FILE"), f"{variable}_FILE"

    for field in msgspec.structs.fields(type):
        if field.required and field.name not in raw:
            variable = prefix + field.name.upper()
            raise Misconfigured(f"{field.name} is not set: give [{type.section}] {field.name} or {variable}")
        if field.name in raw and field.name not in nested:
            raw[field.name] = _convert(raw[field.name], field.type, origin[field.name], field.name in secrets)
    return type(**raw)


def _convert(value: Any, type: Any, origin: str, secret: bool) -> Any:
    try:
        converted = msgspec.convert(value, type, strict=not origin.startswith(_PREFIX))
    except msgspec.ValidationError as error:
        if secret:
            raise Misconfigured(f"{origin} is not of the form that it must have") from None
        problem = str(error).replace("`", "").split(" - at ")[0]
        problem = problem.replace("str matching regex", "a text of the form")
        raise Misconfigured(f"{origin} is {_short(value)}: {problem[:1].lower()}{problem[1:]}") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise Misconfigured(f"{origin} is {converted}: expected a finite number")
    return converted


def _short(value: Any) -> str:
    text = re.sub(r"//[^/@]*@", "//…@", repr(value))  # what stands before an @ in an address may be a password
    return text if len(text) <= 60 else text[:57] + "…"


def _parse(value: str, annotation: Any) -> Any:
    """A variable's text as what msgspec converts from: lists are separated by commas."""
    if _holds(annotation, list, tuple, frozenset):
        return [part.strip() for part in value.split(",") if part.strip()]
    if _holds(annotation, bool):
        return {"yes": True, "on": True, "no": False, "off": False}.get(value.lower(), value.lower())
    return value


def _holds(annotation: Any, *wanted: type) -> bool:
    """Whether the annotation is one of them, looking through Annotated and `| None` but not into containers."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _holds(get_args(annotation)[0], *wanted)
    if origin in (Union, UnionType):
        return any(_holds(inner, *wanted) for inner in get_args(annotation))
    return (origin or annotation) in wanted


def _secrets(type: type[Struct]) -> frozenset[str]:
    """The fields that are declared `Secret`, alone or in a union."""
    return frozenset(field.name for field in msgspec.structs.fields(type) if _is_secret(field.type))


def _is_secret(annotation: Any) -> bool:
    metas = getattr(annotation, "__metadata__", ())
    if any(isinstance(meta, Meta) and (meta.extra or {}).get("secret") for meta in metas):
        return True
    return any(_is_secret(inner) for inner in get_args(annotation) if not isinstance(inner, Meta))


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _secret(path: Path, origin: str) -> str:
    try:
        value = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{origin} names {path}, which cannot be read: {_reason(error)}") from error
    if not value:
        raise Misconfigured(f"{origin} names {path}, which is empty")
    return value


def _read(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the settings file {path} cannot be read: {_reason(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"the settings file {path} is not TOML: {error}") from error
    _check_known(tables, SECTIONS, lambda key: f"section [{key}] in {path}")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise Misconfigured(f"{name} in {path} is no section: write [{name}] and its keys below")
    return tables


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "error").lower() if isinstance(error, OSError) else "it is not UTF-8"


def _check_variables(env: Mapping[str, str]) -> None:
    """Raises for a `SANDREEL_*` variable that belongs to no section; the sections check their own."""
    heads = tuple(f"{_PREFIX}{section.upper()}_" for section in SECTIONS)
    for name in env:
        if name.startswith(_PREFIX) and name not in _MARKERS and not name.startswith(heads):
            head = re.match(r"SANDREEL_([A-Za-z0-9]*)", name)
            nearest = difflib.get_close_matches((head.group(1) if head else "").lower(), SECTIONS, 1, 0.5)
            hint = (
                f"did you mean {name.replace(head.group(1), nearest[0].upper(), 1)}?"
                if head and nearest
                else (f"variables begin with SANDREEL_ and one of {', '.join(SECTIONS)}")
            )
            raise Misconfigured(f"variable {name} is not known; {hint}")


def _check_known(given: Iterable[str], known: Iterable[str], describe: Any) -> None:
    candidates = list(known)
    for key in given:
        if key not in candidates:
            nearest = difflib.get_close_matches(key, candidates, 1, 0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are: {', '.join(sorted(candidates))}"
            raise Misconfigured(f"{describe(key)} is not known; {hint}")
