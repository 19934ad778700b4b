"""The contract as documents: one JSON Schema of every message, and an AsyncAPI 3 description. Pure.

`make contract` writes them to `docs/contract`; a test fails when what is there is not what this says.
"""

from __future__ import annotations

import json
from inspect import cleandoc
from typing import Any

import msgspec

from sandreel_core.contract import bootstrap as b
from sandreel_core.contract import files as f
from sandreel_core.contract import runnerd as r
from sandreel_core.contract import secret as s
from sandreel_core.contract.catalog import COMMANDS, CONTRACT_VERSION, EVENTS
from sandreel_core.contract.codec import envelope_types
from sandreel_core.contract.requests import Done, Failure
from sandreel_core.contract.subjects import KEYED, ROLES, SINGLE

SCHEMA = "schema.json"
ASYNCAPI = "asyncapi.json"

# verb: (role that answers, request, reply)
REQUESTS: dict[str, tuple[str, type, type]] = {
    "bootstrap": ("spawner", b.Bootstrap, b.Bootstrapped),
    "renew": ("spawner", b.Renew, b.Renewed),
    "secret": ("broker", s.AskSecret, s.Secret),
    "feed": ("spawner", b.MakeFeed, b.FeedMade),
    "log": ("spawner", b.AskLog, b.LogHead),
    "health": ("runnerd", Done, r.Health),
    "drain": ("runnerd", r.Drain, r.Drained),
    "lift": ("runnerd", Done, Done),
    "hold": ("runnerd", r.Hold, Done),
    "keys": ("runnerd", r.Keys, r.KeysTaken),
    "list_files": ("runnerd", f.ListFiles, f.FileList),
    "read_file": ("runnerd", f.ReadFile, f.FileChunk),
    "write_file": ("runnerd", f.WriteFile, f.FileStored),
    "delete_file": ("runnerd", f.DeleteFile, Done),
    "fetch_file": ("runnerd", f.FetchFile, f.FileStored),
}


def schema() -> dict[str, Any]:
    """Every message body and every request and reply, as `$defs` of one JSON Schema 2020-12 document."""
    kinds = (*envelope_types(), r.Heartbeat, Failure, *(kind for _, *pair in REQUESTS.values() for kind in pair))
    _, components = msgspec.json.schema_components(dict.fromkeys(kinds), ref_template="#/$defs/{name}")
    for component in components.values():
        if "description" in component:  # a docstring: indented before Python 3.13, not since
            component["description"] = cleandoc(component["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"sandreel contract, version {CONTRACT_VERSION}",
        "$defs": dict(sorted(components.items())),
    }


def asyncapi(version: str) -> dict[str, Any]:
    """An AsyncAPI 3.0 document; payloads refer to the schema beside it."""
    names = {str(kind.__struct_config__.tag): kind.__name__ for kind in envelope_types()}
    aggregates = {
        aggregate: [n for n, kind in EVENTS.items() if kind.aggregate in (aggregate, "command")]
        for aggregate in (*SINGLE, *KEYED)
    }
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}

    def channel(name: str, address: str, messages: list[str], description: str) -> None:
        channels[name] = {
            "address": address,
            "description": description,
            "messages": {m: {"$ref": f"#/components/messages/{m}"} for m in messages},
            "parameters": {p.strip("{}"): {} for p in address.split(".") if p.startswith("{")},
        }

    def operation(name: str, action: str, of: str, **more: Any) -> None:
        operations[name] = {"action": action, "channel": {"$ref": f"#/channels/{of}"}, **more}

    for aggregate, types in aggregates.items():
        tail = f"{aggregate}.{{{aggregate}}}" if aggregate in KEYED else aggregate
        channel(f"{aggregate}_events", f"evt.{{p}}.{{org}}.{{session}}.{tail}", types, f"The log of one {aggregate}.")
        operation(f"follow_{aggregate}", "receive", f"{aggregate}_events")
    for role in ROLES:
        types = [n for n, kind in COMMANDS.items() if kind.role == role]
        channel(f"{role}_commands", f"cmd.{role}.{{org}}.{{session}}.{{id}}", types, f"Commands that {role} decides.")
        operation(f"command_{role}", "send", f"{role}_commands")
    bodies: dict[str, str] = dict(names)
    for verb, (role, asked, told) in REQUESTS.items():
        bodies |= {asked.__name__: asked.__name__, told.__name__: told.__name__}
        channel(verb, f"req.{role}.{{org}}.{{session}}.{verb}", [asked.__name__], f"Asked of {role}, stored nowhere.")
        channel(f"{verb}_reply", "", [told.__name__, "Failure"], "The reply's inbox.")
        channels[f"{verb}_reply"]["address"] = None
        operation(f"ask_{verb}", "send", verb, reply={"channel": {"$ref": f"#/channels/{verb}_reply"}})
    bodies |= {"Heartbeat": "Heartbeat", "Failure": "Failure"}
    channel("heartbeat", "hb.{org}.{session}", ["Heartbeat"], "runnerd is alive; every 5 s, stored nowhere.")
    operation("hear_heartbeat", "receive", "heartbeat")
    messages = {
        name: {
            "name": name,
            "contentType": "application/cloudevents+json" if name in names else "application/json",
            "payload": {"$ref": f"{SCHEMA}#/$defs/{definition}"},
        }
        for name, definition in sorted(bodies.items())
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "sandreel",
            "version": version,
            "description": "Commands in, events out, over NATS JetStream. Attributes of an envelope that are not listed are"
            " extensions (CloudEvents) and are ignored. Fields of `data` that are not listed, at any depth, are refused in a"
            " command and ignored in an event.",
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def documents(version: str) -> dict[str, str]:
    """File name to text."""
    made = {SCHEMA: schema(), ASYNCAPI: asyncapi(version)}
    return {name: json.dumps(document, indent=1, ensure_ascii=False) + "\n" for name, document in made.items()}
