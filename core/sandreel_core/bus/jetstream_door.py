"""JetStream for those who may read the log of one organisation: every request is checked, and made anew.

They ask `api.<org>.<verb>`, and NATS lets nobody name another's org. JetStream's own permissions cannot confine a reader:
filters stand in the body, a consumer may deliver wherever its maker says, and one message is asked for by its number. So
the spawner looks at the request, asks JetStream in its own name, and looks at the answer. What a consumer then has is
pulled from the server itself: no event passes through here.
"""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from sandreel_core.bus.jetstream import TIMEOUT_S, JetStreamBus
from sandreel_core.bus.jetstream_api import FORBIDDEN, NS
from sandreel_core.contract.subjects import CMD, DOOR, JETSTREAM, READER
from sandreel_core.errors import Denied, Malformed, SandreelError
from sandreel_core.ids import check_org
from sandreel_core.log import Log

_STREAM = re.compile(rf"REEL-[0-9]+|{CMD}")
_READER = re.compile(rf"{READER}[0-9a-f]{{32}}")
_MAX_FILTERS = 256
# A reader that has gone is forgotten by the server after at most this (jetstream_follow.py asks for 5 s).
_MAX_INACTIVE_S = 10
_MAX_REQUEST_BYTES = 64 * 1024
_UNAVAILABLE = 503
_SEQUENCE = ("by_start_sequence", "all", "new")


class Door:
    """Open it on the bus of a role that may read everything."""

    def __init__(self, bus: JetStreamBus) -> None:
        self._bus = bus
        self._log = Log("bus.door")

    def open(self) -> AbstractAsyncContextManager[None]:
        """Serves while the context is open."""
        return self._bus.serve(f"{DOOR}.*.>", self._serve, group="door")

    async def _serve(self, subject: str, body: bytes) -> bytes:
        _, org, *verb = subject.split(".")
        try:
            return await self._answer(check_org(org), verb, body)
        except (Denied, Malformed) as error:
            self._log.info("a request was refused", org=org, verb=".".join(verb)[:80], problem=str(error))
            return _error(FORBIDDEN, str(error))
        except SandreelError as error:
            return _error(_UNAVAILABLE, str(error))

    async def _answer(self, org: str, verb: list[str], body: bytes) -> bytes:
        if len(body) > _MAX_REQUEST_BYTES:
            raise Malformed(f"the request is over {_MAX_REQUEST_BYTES} bytes")
        match verb:
            case ["STREAM", "INFO", stream]:
                return await self._ask(f"STREAM.INFO.{_stream(stream)}", _info(org, _decoded(body)))
            case ["STREAM", "MSG", "GET", stream]:
                answer = await self._ask(f"STREAM.MSG.GET.{_stream(stream)}", _message(org, _decoded(body)))
                found = msgspec.json.decode(answer).get("message")
                if found is not None:
                    # By its number it may be anybody's.
                    check_filter(org, found["subject"], exact=True)
                return answer
            case ["CONSUMER", "CREATE", stream, name]:
                request = _consumer(org, _stream(stream), _reader(name), _decoded(body))
                return await self._ask(f"CONSUMER.CREATE.{stream}.{name}", request)
            case ["CONSUMER", "INFO" | "DELETE" as what, stream, name]:
                return await self._ask(f"CONSUMER.{what}.{_stream(stream)}.{_reader(name)}", None)
            case _:
                raise Denied(f"{'.'.join(verb)[:80]} is not for the log of one organisation")

    async def _ask(self, verb: str, payload: dict[str, Any] | None) -> bytes:
        body = b"" if payload is None else msgspec.json.encode(payload)
        return await self._bus.raw_request(f"{JETSTREAM}.{verb}", body, timeout_s=TIMEOUT_S)


def _error(code: int, description: str) -> bytes:
    """In JetStream's own form."""
    return msgspec.json.encode({"error": {"code": code, "err_code": 0, "description": description}})


def check_filter(org: str, subject: str, *, exact: bool = False) -> str:
    """The subject, when it can only match events of, and commands to, sessions of `org`. Raises Denied."""
    tokens = subject.split(".")
    mine = len(tokens) > 3 and tokens[0] in ("evt", "cmd") and tokens[1] != ">" and tokens[2] == org
    if not mine or (exact and any(token in ("*", ">") for token in tokens)):
        raise Denied(f"{subject[:200]} is not of organisation {org}")
    return subject


def _stream(name: str) -> str:
    if not _STREAM.fullmatch(name):
        raise Denied(f"{name[:40]} is not a stream of sessions")
    return name


def _reader(name: str) -> str:
    if not _READER.fullmatch(name):
        raise Denied("only a reader's own consumer can be asked for: its name is random")
    return name


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("the request is not a JSON object") from None


def _info(org: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    if "subjects_filter" not in asked:
        return None
    return {"subjects_filter": check_filter(org, str(asked["subjects_filter"])), "offset": _number(asked, "offset")}


def _message(org: str, asked: dict[str, Any]) -> dict[str, Any]:
    if "last_by_subj" in asked:
        return {"last_by_subj": check_filter(org, str(asked["last_by_subj"]))}
    by_number: dict[str, Any] = {"seq": _number(asked, "seq")}
    if "next_by_subj" in asked:
        by_number["next_by_subj"] = check_filter(org, str(asked["next_by_subj"]))
    return by_number


def _consumer(org: str, stream: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """A consumer that is pulled from, keeps nothing, and is soon forgotten: of the request it takes where to begin, and the
    filters."""
    given = asked.get("config")
    if not isinstance(given, dict):
        raise Malformed("the request has no config")
    filters = given.get("filter_subjects") or [given.get("filter_subject", "")]
    if not isinstance(filters, list) or len(filters) > _MAX_FILTERS:
        raise Malformed(f"filter_subjects is a list of at most {_MAX_FILTERS}")
    checked = [check_filter(org, str(subject)) for subject in filters]
    policy = given.get("deliver_policy", "all")
    if policy not in _SEQUENCE:
        raise Denied(f"a reader begins at a sequence, not {str(policy)[:40]}")
    config: dict[str, Any] = {
        "name": name,
        "deliver_policy": policy,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": min(_number(given, "inactive_threshold") or NS, _MAX_INACTIVE_S * NS),
        **({"filter_subject": checked[0]} if len(checked) == 1 else {"filter_subjects": checked}),
    }
    if policy == "by_start_sequence":
        config["opt_start_seq"] = max(1, _number(given, "opt_start_seq"))
    return {"stream_name": stream, "config": config, "action": "create"}


def _number(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise Malformed(f"{name} is not a number")
    return value
