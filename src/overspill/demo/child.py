"""One process of the demo, seen from the supervisor: started with an order, heard line by line, ended or killed.

Its standard error goes to a file, so that a live view stays whole; when it fails, the end of that file is shown.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from .reports import Report, read_report

END_TIMEOUT_S = 3.0


class ChildFailed(Exception):
    """A process of the demo ended when and how it should not have."""


class Child:
    def __init__(
        self, name: str, process: asyncio.subprocess.Process, log: Path, hear: Callable[[Report], None]
    ) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._hear = hear
        self._expected = False  # its end
        self.ended = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, name: str, order: msgspec.Struct, log: Path, hear: Callable[[Report], None]) -> Child:
        with open(log, "ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"overspill.demo.{name}",
                msgspec.json.encode(order).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for the supervisor, which then ends the others
            )
        return cls(name, process, log, hear)

    async def _listen(self) -> None:
        """Until its last word, also after a kill: what is in the pipe still counts."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._hear(read_report(line))
        code = await self._process.wait()
        if code != 0 and not self._expected:
            raise ChildFailed(f"the {self.name} ended with code {code}:\n{self._last_words()}")

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._expected = True
        if self._process.returncode is None:
            self._process.kill()
        await self.ended

    async def end(self) -> None:
        """Politely first. Never raises: this is the way out."""
        self._expected = True
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), END_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
        await asyncio.gather(self.ended, return_exceptions=True)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]
