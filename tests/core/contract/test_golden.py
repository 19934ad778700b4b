"""The wire format does not drift: golden files, CloudEvents, JSON Schema, AsyncAPI."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator

from sandreel_core import __version__
from sandreel_core.contract import catalog, codec
from sandreel_core.contract.document import documents
from sandreel_core.contract.message import Envelope
from tests.support import samples

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[3] / "docs" / "contract"
TYPES = sorted(catalog.COMMANDS | catalog.EVENTS)


def decode(envelope: Envelope, body: bytes) -> Envelope:
    kind = codec.decode_command if envelope.type in catalog.COMMANDS else codec.decode_event
    return kind(envelope.subject, body)


def test_every_type_has_an_example() -> None:
    assert sorted(samples.ALL) == TYPES


@pytest.mark.parametrize("name", TYPES)
def test_golden_json_is_frozen(name: str) -> None:
    """A difference here means that stored logs would be read differently: add a type, do not change one."""
    golden = (GOLDEN / f"{name}.json").read_bytes()
    envelope = samples.ALL[name]
    assert json.loads(codec.encode(envelope)) == json.loads(golden)
    assert decode(envelope, golden) == envelope


@pytest.mark.parametrize("name", TYPES)
def test_body_is_a_cloud_event(name: str) -> None:
    body = codec.encode(samples.ALL[name])
    event = JSONFormat().read(CloudEvent, body)
    assert (event.get_specversion(), event.get_type(), event.get_subject()) == ("1.0", name, samples.ALL[name].subject)
    attributes = set(json.loads(body)) - {"data"}
    assert all(a.isalnum() and a.islower() for a in attributes), "CloudEvents: attribute names are a-z 0-9"


@pytest.mark.parametrize("name", TYPES)
def test_body_follows_the_published_schema(name: str) -> None:
    published = json.loads((DOCS / "schema.json").read_text())
    definition = json.loads((DOCS / "asyncapi.json").read_text())["components"]["messages"][name]["payload"]["$ref"]
    schema = {"$ref": definition.removeprefix("schema.json"), "$defs": published["$defs"]}
    Draft202012Validator(schema).validate(json.loads(codec.encode(samples.ALL[name])))


def test_documents_are_current() -> None:
    """`make contract` writes them."""
    for name, text in documents(__version__).items():
        assert (DOCS / name).read_text() == text, f"docs/contract/{name} is out of date: make contract"


def test_every_reference_of_the_documents_resolves() -> None:
    asyncapi = json.loads((DOCS / "asyncapi.json").read_text())
    published = json.loads((DOCS / "schema.json").read_text())

    def walk(node: object) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                root, path = (published, reference.removeprefix("schema.json"))
                if not reference.startswith("schema.json") and not reference.startswith("#/$defs"):
                    root = asyncapi
                target: object = root
                for part in path.removeprefix("#/").split("/"):
                    assert isinstance(target, dict), reference
                    assert part in target, reference
                    target = target[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(asyncapi)
    walk(published)


def test_additions_by_a_later_version_are_ignored() -> None:
    envelope = samples.ALL["exec.output"]
    body = msgspec.json.decode(codec.encode(envelope))
    body["newattribute"] = "x"
    body["data"]["added_later"] = 1
    assert codec.decode_event(envelope.subject, msgspec.json.encode(body)) == envelope
