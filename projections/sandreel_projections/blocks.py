"""From an `exec.output` to one row of `reel.exec_blocks`. Pure."""

from __future__ import annotations

from binascii import Error, a2b_base64
from datetime import datetime

from sandreel_core.contract.exec import Output
from sandreel_core.errors import Malformed
from sandreel_projections.change import Change

# In the order of the columns of `reel.exec_blocks`; a plain tuple, because COPY takes hundreds of thousands.
Block = tuple[str, str, str, str, int, int, int, bool, bool, bool, bytes, int, int, datetime]

_MAX_LINE = 2**62


def block(change: Change, continues: bool) -> Block:
    """`continues`: an earlier block holds the beginning of this one's first line. Raises Malformed for a block that
    contradicts itself."""
    data = change.data
    if not isinstance(data, Output):
        raise TypeError(f"{change.envelope.type} is no output")
    body, is_text = _body(data)
    newlines = body.count(b"\n")
    if newlines != data.count:
        raise Malformed(f"the block says that it holds {data.count} newlines, and holds {newlines}")
    if body.endswith(b"\n") != data.eol:
        raise Malformed("the block is wrong about whether it ends with a newline")
    if data.line > _MAX_LINE:
        raise Malformed(f"line {data.line} is beyond what can be counted")
    where = change.where
    return (
        where.org,
        where.session,
        where.key,
        data.stream,
        change.envelope.n or 0,
        data.line,
        data.count,
        not continues,
        data.eol,
        is_text,
        body,
        where.partition,
        change.sequence,
        change.at,
    )


def _body(data: Output) -> tuple[bytes, bool]:
    if data.text is not None:
        return data.text.encode(), "\0" not in data.text
    try:
        body = a2b_base64(data.base64 or "", strict_mode=True)
    except Error as error:
        raise Malformed(f"the block's base64 is not in order: {error}") from error
    if b"\0" in body:
        return body, False
    try:
        body.decode()
    except UnicodeDecodeError:
        return body, False
    return body, True
