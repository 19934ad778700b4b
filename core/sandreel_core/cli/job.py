"""A job on this terminal: shown, fed, interrupted, and left running when nobody wants to look any more."""

from __future__ import annotations

from contextlib import aclosing

from sandreel_core.agent import AgentReader
from sandreel_core.cli.agent_screen import AgentScreen
from sandreel_core.cli.ending import exit_code
from sandreel_core.cli.pipes import read_chunks
from sandreel_core.cli.screen import Screen
from sandreel_core.cli.watching import watched
from sandreel_core.client.handle import ExecHandle
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Refused, SandreelError, Unavailable


class Job:
    """`session` as the user named it, for the sentences that tell how to come back."""

    def __init__(
        self,
        handle: ExecHandle,
        session: str,
        *,
        json: bool,
        after: Cursor | None = None,
        lasting: bool = True,
        agent: AgentReader | None = None,
        options: str = "",
    ) -> None:
        """lasting: its session is there afterwards, so that somebody may come back to it. agent: what reads its stdout,
        from its beginning also when only what follows `after` is shown. options: that lead back to it, as `options_of`
        gives them."""
        self._options = options
        self._lasting = lasting
        self._handle = handle
        self._session = session
        self._json = json
        self._agent = agent
        self._after = after if agent is None else None
        cursor = after or handle.cursor
        if agent is None:
            self._screen = Screen(json=json, exec_id=handle.id, cursor=cursor)
        else:
            self._screen = AgentScreen(agent, json=json, exec_id=handle.id, cursor=cursor, after=after)

    @property
    def end(self) -> x.Exited | x.Lost | None:
        """How it ended; None while that is not known."""
        return self._screen.end

    async def announce(self) -> None:
        """For `--detach`: the id on stdout."""
        cursor = str(self._handle.cursor) if self._handle.cursor else None
        if self._json:
            await self._screen.line({"session": self._session, "exec": self._handle.id, "cursor": cursor})
        else:
            print(self._handle.id)

    async def watch(self, *, stdin: int | None = None, interruptible: bool) -> int:
        """Show it until it ends; the exit code. Of two Ctrl-C the first goes to the job if it is
        `interruptible`; else already the first one detaches."""
        gone = await watched(
            self._screen.show(self._handle.follow(self._after)),
            interrupt=self._interrupt if interruptible else None,
            leave=self._say_how_to_return,
            left="detached",
            beside=[self._feed(stdin)] if stdin is not None else [],
        )
        if gone is not None:
            return gone
        assert self._screen.end is not None  # noqa: S101 - a live view ends with the exec
        return exit_code(self._screen.end)

    async def _feed(self, fd: int) -> None:
        """Pipe `fd` into the job, each piece when the one before it is taken, then its end."""
        try:
            async with aclosing(read_chunks(fd)) as chunks:
                async for chunk in chunks:
                    await self._write(chunk)
            await self._write(b"", eof=True)
        except Refused:
            return  # the job has ended or closed its input: as with any pipe, what is left is nobody's

    async def _write(self, data: bytes, *, eof: bool = False) -> None:
        """Until it is taken: a job may read late, and the bus may be away. Under one id, so it is written once."""
        command_id = new_id()
        while True:
            try:
                await self._handle.write_stdin(data, eof=eof, command_id=command_id)
            except Unavailable:
                continue  # after the client's own time-out; the view, which ends with the job, is the bound
            return

    async def _interrupt(self) -> None:
        second = "leave it running" if self._lasting else "end it with its session"
        await self._screen.say(f"interrupting the job; press Ctrl-C again to {second}")
        try:
            await self._handle.signal("SIGINT")
        except SandreelError as error:
            await self._screen.say(f"the job was not interrupted: {error}")

    async def _say_how_to_return(self, what: str) -> None:
        after = f" --after {self._screen.cursor}" if self._screen.cursor else ""
        agent = f" --agent {self._agent.agent}" if self._agent is not None else ""
        goes_on = f"the job goes on: sandreel attach {self._session} {self._handle.id}{agent}{after}{self._options}"
        try:
            await self._screen.say(f"{what}; {goes_on if self._lasting else 'the job ends with its session'}")
        except OSError:
            return  # stderr is gone as well
