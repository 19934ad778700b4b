"""Descriptors of a child's pipes and terminal, without blocking and without asyncio's StreamReader (which costs
nine tenths of the rate: measurements.md)."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import struct
import termios

from sandreel_runnerd.lines import READ_BYTES

# Room for the child to run ahead while a block is on its way. Unprivileged users may have 16384 pages in all
# pipes together (pipe(7)); beyond that the kernel refuses, and the pipe stays as it was.
PIPE_BYTES = 256 * 1024


class Source:
    """The reading end of one output. `read` never waits; `wait` does."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._waiter: asyncio.Future[None] | None = None
        self._watched = False
        self._idle = False
        self.closed = False

    def read(self, limit: int = READ_BYTES) -> bytes | None:
        """What is there, at most `limit` bytes; empty at the end, None when there is nothing now."""
        try:
            return os.read(self.fd, limit)
        except BlockingIOError:
            return None
        except OSError as error:
            # A terminal whose other side is closed says EIO. Any other error ends the stream as well:
            # nothing more can be read, and runnerd lives on.
            if error.errno in (errno.EINTR, errno.EAGAIN):
                return None
            return b""

    def available(self) -> int:
        """How many bytes could be read now."""
        if self.closed:
            return 0
        try:
            return int(struct.unpack("i", fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0"))[0])
        except OSError:
            return 0

    async def wait(self, until: float | None = None) -> None:
        """Until there is something to read, `wake` is called, or the loop's clock says `until`."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if until is None else loop.call_at(until, self.wake)
        self._idle = False
        if not self._watched:
            self._watched = True
            loop.add_reader(self.fd, self._readable)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._ignore()
            os.close(self.fd)

    def _readable(self) -> None:
        # Watched until it is found readable twice while nobody waits: two calls of the kernel for every block are not made.
        # Once says nothing: the loop has asked before who waited could read.
        if self._waiter is not None:
            self.wake()
        elif self._idle:
            self._ignore()
        else:
            self._idle = True

    def _ignore(self) -> None:
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self.fd)


class Sink:
    """The writing end of a child's input."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    def dead(self) -> bool:
        """Whether nobody can read what is written (any more)."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))

    async def write(self, data: bytes, until: float | None = None) -> int:
        """Put the bytes into the pipe, waiting for room until the loop's clock says `until`; how many went in.

        Fewer than there were: time is over, the reader is gone, or `close` was called (see `dead`).
        """
        loop = asyncio.get_running_loop()
        done = 0
        while done < len(data) and not self.closed:
            try:
                done += os.write(self.fd, memoryview(data)[done:])
            except BlockingIOError:
                if until is not None and loop.time() >= until:
                    break
                await self._wait(until)
            except OSError:
                # EPIPE, or EIO of a terminal: the reader is gone. That is the writer's news, not runnerd's end.
                self.close()
        return done

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._waiter is not None:
                asyncio.get_running_loop().remove_writer(self.fd)
                self._wake()
            os.close(self.fd)

    async def _wait(self, until: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if until is None else loop.call_at(until, self._wake)
        loop.add_writer(self.fd, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if not self.closed:
                loop.remove_writer(self.fd)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def pipe(size: int | None = PIPE_BYTES) -> tuple[int, int]:
    """(reading end, writing end), both closed on exec; of `size` bytes where the kernel grants it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if size is not None:
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBUSY, errno.EINVAL):
                raise
    return reader, writer
