"""What a request has beside text, so that its bytes do not say its tokens: pictures in base64, which are most of its bytes and few of its
tokens, and what the provider gets by itself, from an address or its own files, of which only the name is there. Pure.

Only what stands where the provider reads such a thing is counted. The same in what a person or a tool said is text, and costs by its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct, field

_DATA_URL = b'"data:image/'


class Attached(NamedTuple):
    """Pictures, their bytes together, and how much stands elsewhere."""

    pictures: int = 0
    picture_bytes: int = 0
    elsewhere: int = 0


class _Source(Struct):
    """Anthropic's. A document's may be made of parts."""

    type: str | None = None
    media_type: str | None = None
    data: Raw = Raw(b"")
    content: str | list[_Part] | None = None


class _Google(Struct):
    """Google's data, or the name of a file. Its servers take both spellings."""

    mime_type: str | None = None
    camel_mime_type: str | None = field(name="mimeType", default=None)
    data: Raw = Raw(b"")
    file_uri: str | None = None
    camel_file_uri: str | None = field(name="fileUri", default=None)


class _Named(Struct):
    """OpenAI's in Chat Completions: the address of a picture, a file."""

    url: Raw = Raw(b"")
    file_id: str | None = None


class _Part(Struct):
    """A message or a part of one, in any API's form: they nest under names that differ."""

    source: _Source | str | None = None
    image_url: Raw = Raw(b"")
    file: _Named | str | None = None
    file_id: str | None = None
    file_url: str | None = None
    inline_data: _Google | None = None
    camel_inline_data: _Google | None = field(name="inlineData", default=None)
    file_data: _Google | str | None = None
    camel_file_data: _Google | None = field(name="fileData", default=None)
    content: str | list[_Part] | _Part | None = None
    output: str | list[_Part] | _Part | None = None
    parts: list[_Part] | None = None


class _Body(Struct):
    messages: list[_Part] = []
    input: str | list[_Part] | None = None
    contents: list[_Part] = []
    system: str | list[_Part] | None = None
    system_instruction: _Part | None = None
    camel_system_instruction: _Part | None = field(name="systemInstruction", default=None)


_read = msgspec.json.Decoder(_Body).decode
_named = msgspec.json.Decoder(_Named).decode
_ELSEWHERE = -1


def attached(body: bytes) -> Attached | None:
    """None: it has another form than those that are known. Reading all of it takes no longer than looking for one word in it."""
    try:
        read = _read(body)
        items = [read.messages, read.contents]
        items += [each for each in (read.input, read.system) if isinstance(each, list)]
        items += [[each] for each in (read.system_instruction, read.camel_system_instruction) if each is not None]
        found = [each for parts in items for each in _of(parts)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    sizes = [size for size in found if size != _ELSEWHERE]
    return Attached(len(sizes), sum(sizes), len(found) - len(sizes))


def _of(parts: list[_Part]) -> Iterator[int]:
    """The bytes of each picture; `_ELSEWHERE` for each thing that is not there."""
    for part in parts:
        inner = [part.content, part.output, part.parts]
        source, file = part.source, part.file
        if isinstance(source, _Source):
            inner.append(source.content)
            if source.type == "base64" and (source.media_type or "").startswith("image/"):
                yield len(bytes(source.data))
            elif source.type in ("url", "file"):
                yield _ELSEWHERE
        for google in (part.inline_data, part.camel_inline_data, part.file_data, part.camel_file_data):
            if isinstance(google, _Google):
                if google.file_uri or google.camel_file_uri:
                    yield _ELSEWHERE
                elif (google.mime_type or google.camel_mime_type or "").startswith("image/"):
                    yield len(bytes(google.data))
        for name in (part.file_id, part.file_url, file.file_id if isinstance(file, _Named) else None):
            if name:
                yield _ELSEWHERE
        if url := bytes(part.image_url):
            url = bytes(_named(url).url) if url.startswith(b"{") else url
            if url.startswith(_DATA_URL):
                yield len(url)
            elif url.startswith(b'"'):
                yield _ELSEWHERE
        for each in inner:
            if isinstance(each, _Part):
                yield from _of([each])
            elif isinstance(each, list):
                yield from _of(each)
