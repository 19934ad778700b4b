"""What a secret may look like in output: as it is, and as programs write it by themselves. Pure."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

# Of values of several lines (keys, kubeconfigs) each longer word is looked for as well: `grep`, `diff` and an indented
# copy print lines, not the whole. Shorter ones are words of the format (`apiVersion:`, `-----BEGIN`).
MIN_WORD_BYTES = 16
MAX_WORDS = 512  # a 32 KiB value of PEM lines has 500
# Columns at which base64(1) and openssl(1) break their lines.
_WRAPPED_AT = (76, 64)
_PERCENT = re.compile(rb"%[0-9A-F]{2}")
_UNICODE = re.compile(r"\\u[0-9a-f]{4}")
# What encodeURIComponent leaves as it is, beside what `quote` does.
_COMPONENT_SAFE = "!'()*"


def forms(value: bytes) -> set[bytes]:
    """The value itself and its derived forms. Space around it counts as not being part of it.

    base64 (standard and URL-safe) has three forms, one for each place that the value may have in a group of three
    bytes; at their edges the characters that depend on neighbours are left out, and those betray 4 bits at most.
    """
    value = value.strip()
    found = {value, *_base64(value), *_percent(value), *_json(value)}
    found |= {form.replace(b"\n", b"\r\n") for form in found}  # as a terminal has it
    if b"\n" in value:
        found |= {word for word in value.split()[:MAX_WORDS] if len(word) >= MIN_WORD_BYTES}
    return found


def _base64(value: bytes) -> Iterator[bytes]:
    for before in range(3):
        encoded = b64encode(bytes(before) + value)
        # 8 bits a byte, 6 a character; a character that is partly of the bytes before or behind is not the value's.
        whole = encoded[-(-8 * before // 6) : 8 * (before + len(value)) // 6]
        for form in (whole, whole.translate(bytes.maketrans(b"+/", b"-_"))):
            yield form
            if before == 0:
                for width in _WRAPPED_AT:
                    yield b"\n".join(form[at : at + width] for at in range(0, len(form), width))


def _percent(value: bytes) -> Iterator[bytes]:
    for quoted in (quote(value, safe=""), quote(value), quote(value, safe=_COMPONENT_SAFE), quote_plus(value)):
        form = quoted.encode("ascii")
        yield form
        yield _PERCENT.sub(lambda match: match[0].lower(), form)


def _json(value: bytes) -> Iterator[bytes]:
    """Once, and twice: an agent's JSON lines quote what a tool printed as JSON. Of what is not UTF-8 there is no JSON."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for once in _quoted(text):
        yield once.encode()
        for twice in _quoted(once):
            yield twice.encode()


def _quoted(text: str) -> set[str]:
    found = set()
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        html = plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # as Go does
        for form in (plain, html, plain.replace("/", "\\/")):
            found |= {form, _UNICODE.sub(lambda match: "\\u" + match[0][2:].upper(), form)}
    return found
