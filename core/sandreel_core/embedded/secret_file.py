"""A file that nobody else may read: it is 0600 from its first moment on."""

from __future__ import annotations

import os
from pathlib import Path

from sandreel_core.embedded.account import Account
from sandreel_core.errors import Misconfigured


def write_secret(path: Path, text: str, user: Account | None = None) -> None:
    """Replace the file in one step, for good when this returns: what a new key seals is stored elsewhere, and must not outlive
    it. `user`: whose it is, if not ours. Raises Misconfigured."""
    whole = path.with_name(path.name + ".new")
    try:
        whole.unlink(missing_ok=True)
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if user is not None:
            user.own(whole)
        whole.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {(error.strerror or 'error').lower()}") from error
