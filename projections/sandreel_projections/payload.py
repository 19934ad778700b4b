"""What of a message's data the audit views keep: JSON text that `jsonb` takes, without what is nobody's business. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

# Of one message, as JSON. Most have a few hundred bytes; a prompt of 64 KiB or a script of 512 KiB is cut and says so.
MAX_DATA_BYTES = 16 * 1024
# Of one text in it, once the whole is over the limit.
MAX_TEXT_CHARS = 1024

# Variables: analysts see what they are called, as in `reel.execs.env_names`, and not what is in them.
_NAMES_ONLY = {
    "session.create": "env",
    "session.requested": "env",
    "exec.start": "env",
    "env.patch": "set",
    "env.patched": "set",
}
# What somebody typed: only how much it was.
_SIZE_ONLY = {"exec.start": ("stdin_text", "stdin_base64"), "exec.write_stdin": ("text", "base64")}


class _Message(msgspec.Struct, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Message)
_encoder = msgspec.json.Encoder()


def kept(type: str, body: bytes) -> str | None:
    """The `data` of the message with this body, or None where it is none that can be read.

    A text that is too long ends in `…[+N]`, N being the characters that are missing; data that is too large even
    so becomes `{"omitted_bytes": N}`.
    """
    try:
        data = msgspec.json.decode(_decoder.decode(body).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if data is None:
        return None
    return json_within(_discreet(type, data) if isinstance(data, dict) else data, MAX_DATA_BYTES)


def json_within(value: Any, max_bytes: int) -> str:
    """A value that was JSON as JSON text that `jsonb` takes, shortened as `kept` says where it has more than `max_bytes`."""
    encoded = _encoder.encode(value)
    if len(encoded) > max_bytes:
        size = len(encoded)
        encoded = _encoder.encode(_shortened(value))
        if len(encoded) > max_bytes:
            encoded = _encoder.encode({"omitted_bytes": size})
    if b"\\u0000" in encoded:  # jsonb refuses NUL; a backslash before it may be a text's own, so look closer
        encoded = _encoder.encode(_without_nul(msgspec.json.decode(encoded)))
    return encoded.decode()


def _discreet(type: str, data: dict[str, Any]) -> dict[str, Any]:
    data = dict(data)
    if (name := _NAMES_ONLY.get(type)) and isinstance(values := data.get(name), dict):
        data[name] = sorted(values)
    for name in _SIZE_ONLY.get(type, ()):
        value = data.pop(name, None)
        if isinstance(value, str):
            data[f"{name}_chars"] = len(value)
    return data


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        return f"{value[:MAX_TEXT_CHARS]}…[+{len(value) - MAX_TEXT_CHARS}]"
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    return value


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {name.replace("\0", "\ufffd"): _without_nul(each) for name, each in value.items()}
    return value
