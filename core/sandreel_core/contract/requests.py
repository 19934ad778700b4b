"""What travels over `req.`, stored nowhere: the form that everything asked and answered has.

Of the spawner is asked what bootstrap.py holds, of the broker secret.py and lease.py, of the bridge secret.py and prompt.py, of
runnerd runnerd.py and files.py.

An answer is either the reply type or `Failure`; the bus turns the latter into an exception.
"""

from __future__ import annotations

from msgspec import Struct


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Done(Reply, frozen=True, kw_only=True):
    """Nothing more to say."""


class Failure(Reply, frozen=True, kw_only=True, tag_field="failure", tag=True):
    """`kind` is the name of the error class in `errors.py`, `code` that of a Refused."""

    kind: str
    message: str
    code: str = ""
