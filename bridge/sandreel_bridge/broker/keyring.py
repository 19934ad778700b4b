"""The key-encryption keys, and where they come from: lines of base64 in a file, or in what a command prints.

The first key is the one that seals; those behind it only open what a rotation has not come to yet (`rewrap.py`).
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sandreel_bridge.broker import sealing
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Malformed, Misconfigured

# A rotation has two; whoever has more than these keeps them for something else.
MAX_KEYS = 16
_MAX_BYTES = 4096
_COMMAND_WITHIN_S = 30.0


class Keyring:
    """It has no repr of its own, so that no key gets into a log by a traceback."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {sealing.key_id(key): key for key in keys}
        self.current = next(iter(self._keys))

    @property
    def ids(self) -> list[str]:
        """The names of the keys, the one that seals first."""
        return list(self._keys)

    def wrap(self, plain: bytes, context: str) -> tuple[str, bytes]:
        """Sealed with the current key, whose name comes with it."""
        return self.current, sealing.encrypt(self._keys[self.current], plain, context)

    def open(self, key_id: str, sealed: bytes, context: str) -> bytes:
        """Raises Malformed; KeyError for a key that is not here."""
        return sealing.decrypt(self._keys[key_id], sealed, context)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys


class KeySource:
    """A file or a command, read again whenever it is asked. Blocking."""

    def __init__(self, *, file: str | None = None, command: Sequence[str] = ()) -> None:
        """Raises Misconfigured unless it is exactly one of them."""
        if (file is None) == (not command):
            raise Misconfigured("give one of [broker] key_file and [broker] key_command")
        self._file = None if file is None else Path(file)
        self._command = list(command)

    def __str__(self) -> str:
        """For an error."""
        return str(self._file) if self._file is not None else f"the output of {self._command[0]}"

    def load(self) -> Keyring:
        """Raises Misconfigured, with nothing of what was read."""
        return Keyring(self._parse(self._read()))

    @property
    def is_open_to_others(self) -> bool:
        """Whether any user of this machine can read the keys: whoever can, and has the database, has every value."""
        return self._file is not None and bool(self._file.stat().st_mode & stat.S_IROTH)

    def renew(self) -> Keyring:
        """Put a fresh key in front of those that are there. Raises Misconfigured: a command's keys are made elsewhere."""
        if self._file is None:
            raise Misconfigured(f"a new key has to come first in {self}: make it there, and run this without --new-key")
        keys = [sealing.new_key(), *self._parse(self._read())]
        self._write(keys)
        return Keyring(keys)

    def retire(self, current: str) -> int:
        """Leave only the key that seals, whose name is `current`; how many went. Of a command nothing goes: its keys are
        somebody else's to keep. Raises Misconfigured when another key has come first meanwhile."""
        if self._file is None:
            return 0
        first, *rest = self._parse(self._read())
        if sealing.key_id(first) != current:
            raise Misconfigured(f"somebody has changed {self}: its first key is not {current} any more; run it again")
        if rest:
            self._write([first])
        return len(rest)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else rotates while the context is open: a second one would put its own key over ours, with which values are
        sealed already. Raises Misconfigured when somebody does. A command's keys are not changed from here."""
        if self._file is None:
            yield
            return
        try:
            descriptor = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Misconfigured(f"{self} cannot be changed: {(error.strerror or 'error').lower()}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Misconfigured(f"another rotation of {self} is under way; wait for it") from None
            yield
        finally:
            os.close(descriptor)

    def _write(self, keys: Sequence[bytes]) -> None:
        """The file stays whose it was: root may rotate what a broker of another user reads."""
        assert self._file is not None  # noqa: S101 - both callers have looked
        if len(keys) > MAX_KEYS:
            raise Misconfigured(
                f"{self} holds {len(keys)} keys, and {MAX_KEYS} are the most: finish the rotations begun"
            )
        before = self._file.stat()
        write_secret(self._file, "".join(f"{base64.b64encode(key).decode()}\n" for key in keys))
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            with suppress(PermissionError):
                os.chown(self._file, before.st_uid, before.st_gid)
                self._file.chmod(before.st_mode & 0o640)

    def _read(self) -> str:
        if self._file is not None:
            try:
                with self._file.open("rb") as file:
                    return file.read(_MAX_BYTES + 1).decode("ascii", "replace")
            except OSError as error:
                why = (error.strerror or "error").lower()
                raise Misconfigured(f"[broker] key_file names {self._file}, which cannot be read: {why}") from error
        try:
            done = subprocess.run(
                self._command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_COMMAND_WITHIN_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = (error.strerror or "error").lower() if isinstance(error, OSError) else "it does not end"
            raise Misconfigured(f"[broker] key_command {self._command[0]}: {why}") from None
        if done.returncode:
            raise Misconfigured(f"[broker] key_command {self._command[0]} ended with {done.returncode}")
        return done.stdout[: _MAX_BYTES + 1].decode("ascii", "replace")

    def _parse(self, text: str) -> list[bytes]:
        if len(text) > _MAX_BYTES:
            raise Misconfigured(f"{self} is longer than {_MAX_BYTES} bytes: it is no file of keys")
        keys: list[bytes] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                key = base64.b64decode(line.strip(), validate=True)
                if len(key) != sealing.KEY_BYTES:
                    raise Malformed("length")
            except (binascii.Error, ValueError, Malformed):
                raise Misconfigured(
                    f"line {number} of {self} is no key: {sealing.KEY_BYTES} random bytes in base64 (`openssl rand -base64 32`)"
                ) from None
            if key not in keys:
                keys.append(key)
        if not keys or len(keys) > MAX_KEYS:
            raise Misconfigured(f"{self} holds {len(keys)} keys; it takes 1 to {MAX_KEYS}")
        return keys
