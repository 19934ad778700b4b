"""As which system user an embedded server runs when we are root, and how it gets to its files.

No session runs as this user, so none can read or stop a server. Without root a server runs as ourselves.
"""

from __future__ import annotations

import errno
import os
import pwd
import struct
from dataclasses import dataclass
from pathlib import Path

from sandreel_core.errors import Misconfigured

# `sandreel` if the operator made it; `postgres` and `daemon` exist nearly everywhere.
USERS = ("sandreel", "postgres", "daemon")
# The uids of the profiles `default` and `agent` (design §6).
SESSION_UIDS = frozenset({65534, 10001})

_ACL = "system.posix_acl_access"
# linux/posix_acl_xattr.h: a version word, then entries of tag, permissions, id.
_VERSION, _UNNAMED = 2, 0xFFFFFFFF
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_SEARCH = 1


@dataclass(frozen=True, slots=True)
class Account:
    """A uid and gid to run a program as."""

    name: str
    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give a file or directory to the account."""
        os.chown(path, self.uid, self.gid)

    def reach(self, path: Path) -> None:
        """Let the account search every directory above `path`: no more than that, and nobody else.

        Raises Misconfigured when the file system cannot do it.
        """
        for parent in reversed(path.resolve().parents):
            if not parent.stat().st_mode & 0o001:
                _allow_search(parent, self)


def account() -> Account | None:
    """The account for servers, None when we are not root. Raises Misconfigured when there is none."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid not in SESSION_UIDS and found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise Misconfigured(
        f"as root, servers run as one of the users {', '.join(USERS)}; none exists: make one (useradd --system sandreel)"
    )


def _allow_search(directory: Path, account: Account) -> None:
    mode = directory.stat().st_mode
    try:
        raw = os.getxattr(directory, _ACL)
        entries = [struct.unpack_from("<HHI", raw, at) for at in range(4, len(raw), 8)]
    except OSError:  # no list yet, or none to be had: then the write below says so
        entries = [
            (_OWNER, mode >> 6 & 7, _UNNAMED),
            (_GROUP, mode >> 3 & 7, _UNNAMED),
            (_MASK, mode >> 3 & 7, _UNNAMED),
            (_OTHER, mode & 7, _UNNAMED),
        ]
    wanted = {(tag, id): permissions for tag, permissions, id in entries}
    wanted[_USER, account.uid] = wanted.get((_USER, account.uid), 0) | _SEARCH
    wanted[_MASK, _UNNAMED] = wanted.get((_MASK, _UNNAMED), mode >> 3 & 7) | _SEARCH
    packed = b"".join(struct.pack("<HHI", tag, wanted[tag, id], id) for tag, id in sorted(wanted))
    try:
        os.setxattr(directory, _ACL, struct.pack("<I", _VERSION) + packed)
    except OSError as error:
        why = errno.errorcode.get(error.errno or 0, "error")
        raise Misconfigured(
            f"the user {account.name} cannot reach anything below {directory} ({why}): give another place with --data"
        ) from error
