"""The origin: an HTTP server of its own that takes PUTs, slowly, sometimes not, and for a while not at all.

What it answers with 201 it has stored (complete, under its name) and written into its journal first. A body that
does not match the SHA-256 sent along gets 422 and is not stored. A name that comes again replaces what was there, so
an uploader that never saw our answer may simply send again.

Its faults: every answer takes a while, one in thirty takes far longer, one in sixteen is 503; the dice are
seeded. "down" on standard input really closes the listening socket and every connection, so that a client
is refused; "up" opens it again on the same port. A second socket, bound but never listening, keeps
the port ours in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import socket
import sys

import msgspec
from aiohttp import web

from .journal import Entry, Journal
from .lifeline import die_with_parent
from .places import Places
from .reports import report
from .segment import kind_of

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
UNAVAILABLE_SHARE = 1 / 16
STALL_SHARE = 1 / 30
DELAY_S = (0.012, 0.030)
STALL_S = (0.150, 0.300)
BODY_BYTES_MAX = 64 << 20


class OriginOrder(msgspec.Struct, frozen=True):
    parent: int
    places: Places
    seed: int


class Origin:
    def __init__(self, order: OriginOrder, journal: Journal) -> None:
        self._store = order.places.store
        self._journal = journal
        self._dice = random.Random(order.seed)
        self._reserved = bound_socket(0)
        self.port: int = self._reserved.getsockname()[1]
        self._runner: web.AppRunner | None = None

    async def up(self) -> None:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_put("/{stream}/{name}", self._put)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.SockSite(self._runner, bound_socket(self.port)).start()
        report("up", port=self.port)

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            report("down")

    async def _put(self, request: web.Request) -> web.Response:
        stream, name = request.match_info["stream"], request.match_info["name"]
        if not (PLAIN_NAME.fullmatch(stream) and PLAIN_NAME.fullmatch(name)):
            return web.Response(status=400, text="a name is letters, digits, dots and dashes\n")
        body = await request.read()
        refused, delay_s = self._throw_dice()
        await asyncio.sleep(delay_s)
        if refused:
            report("unavailable")
            return web.Response(status=503, text="try again later\n")
        sha256 = hashlib.sha256(body).hexdigest()
        if sha256 != request.headers.get("X-SHA256", sha256):
            return web.Response(status=422, text=f"received {sha256}\n")
        self._keep(stream, name, body)
        self._journal.note(Entry(stream=stream, name=name, kind=kind_of(name), sha256=sha256, size=len(body)))
        report("stored", stream=stream, name=name, kind=kind_of(name), size=len(body))
        return web.Response(status=201)

    def _throw_dice(self) -> tuple[bool, float]:
        """Always the same number of throws, so that one answer's fate does not shift the next one's."""
        unavailable = self._dice.random() < UNAVAILABLE_SHARE
        stalls = self._dice.random() < STALL_SHARE
        return unavailable, self._dice.uniform(*(STALL_S if stalls else DELAY_S))

    def _keep(self, stream: str, name: str, body: bytes) -> None:
        folder = self._store / stream
        folder.mkdir(parents=True, exist_ok=True)
        arriving = folder / f".{name}.arriving"
        arriving.write_bytes(body)
        os.replace(arriving, folder / name)


def bound_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


async def serve(order: OriginOrder) -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    order.places.store.mkdir(parents=True)
    with Journal(order.places.journal) as journal:
        origin = Origin(order, journal)
        await origin.up()
        async for line in commands:
            match line.strip():
                case b"down":
                    await origin.down()
                case b"up":
                    await origin.up()
        await origin.down()  # whoever held our standard input has closed it


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=OriginOrder)
    die_with_parent(order.parent)
    asyncio.run(serve(order))


if __name__ == "__main__":
    main()
