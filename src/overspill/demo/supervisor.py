"""Starts the four processes, pulls the plugs at the planned times, and ends when all is drained.

The timeline waits for facts as well as for the clock, so that a slow machine shows the same story: the first
kill waits until something is on disk only; the outage ends after the queue is back; the second kill strikes
when the origin has just said that it stored something, before the queue's process can have heard it.

If any process fails, or all takes far too long, the run ends with an exception; in every case no process is left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec

from overspill import MiB

from .child import Child, ChildFailed
from .encoder import EncoderOrder
from .facts import Facts
from .mirror import MirrorOrder
from .origin import OriginOrder
from .places import Places
from .plan import Plan
from .reports import Report
from .view import View

MEMORY_SIZE = 16
MEMORY_LIMIT = 3 * MiB
MAX_DISK_SIZE = 2048 * MiB
SPILLED_BEFORE_KILL = 4
REFRESH_S = 0.25


class Supervisor:
    def __init__(self, plan: Plan, places: Places, facts: Facts, view: View) -> None:
        self._plan = plan
        self._places = places
        self._facts = facts
        self._view = view
        self._heard = asyncio.Event()
        self._origin_port = 0
        self._mirror: Child | None = None

    async def run(self) -> None:
        async with AsyncExitStack() as children, asyncio.timeout(60 + 4 * self._plan.duration_s):
            refreshing = asyncio.create_task(self._refresh())
            children.callback(refreshing.cancel)
            me = os.getpid()
            origin = await self._start("origin", OriginOrder(parent=me, places=self._places, seed=self._plan.seed))
            children.push_async_callback(origin.end)
            await self._until(lambda: self._origin_port != 0, origin)
            children.push_async_callback(self._end_mirror)
            await self._start_mirror()
            order = EncoderOrder(
                parent=me, places=self._places, streams=self._plan.streams, duration_s=self._plan.duration_s
            )
            encoder = await self._start("encoder", order)
            children.push_async_callback(encoder.end)
            await self._until(lambda: self._facts.encoding, encoder, origin)
            await self._timeline(origin, encoder)
            await self._until(lambda: self._facts.drained, encoder, origin)
            await encoder.ended
            assert self._mirror is not None
            await self._mirror.ended

    async def _timeline(self, origin: Child, encoder: Child) -> None:
        begun = asyncio.get_running_loop().time()

        async def at(due_s: float) -> None:
            left_s = begun + due_s - asyncio.get_running_loop().time()
            await self._until(lambda: False, encoder, origin, give_up_s=max(0.0, left_s))

        await at(self._plan.outage_at_s)
        origin.tell("down")
        await at(self._plan.kill_in_outage_at_s)
        await self._until(
            lambda: self._facts.tiers.disk_items >= SPILLED_BEFORE_KILL or self._facts.encoded, encoder, origin
        )
        await self._kill_mirror()
        await at(self._plan.outage_ends_s)
        origin.tell("up")
        await at(self._plan.kill_in_upload_at_s)
        stored = self._facts.stored
        await self._until(lambda: self._facts.stored > stored or self._facts.drained, encoder, origin)
        if not self._facts.drained:
            await self._kill_mirror()

    async def _start(self, name: str, order: msgspec.Struct) -> Child:
        return await Child.start(name, order, self._places.log(name), self._hear)

    async def _start_mirror(self) -> None:
        order = MirrorOrder(
            parent=os.getpid(),
            places=self._places,
            streams=self._plan.streams,
            origin_port=self._origin_port,
            memory_size=MEMORY_SIZE,
            memory_limit=MEMORY_LIMIT,
            max_disk_size=MAX_DISK_SIZE,
        )
        self._mirror = await self._start("mirror", order)
        await self._until(lambda: self._facts.mirror_is_up)

    async def _kill_mirror(self) -> None:
        assert self._mirror is not None
        await self._mirror.kill()
        self._facts.killed()
        self._view.refresh(self._facts)
        await asyncio.sleep(self._plan.restart_after_s)
        await self._start_mirror()

    async def _end_mirror(self) -> None:
        if self._mirror is not None:
            await self._mirror.end()

    def _hear(self, report: Report) -> None:
        if report["event"] == "up":
            self._origin_port = report["port"]
        self._facts.hear(report)
        self._heard.set()

    async def _until(self, holds: Callable[[], bool], *others: Child, give_up_s: float | None = None) -> None:
        """Wait for something to be heard that makes it so; a process that ends too early ends the wait.

        With `give_up_s` the time is the normal end, without it the run's own time-out is the only one.
        """
        loop = asyncio.get_running_loop()
        deadline = None if give_up_s is None else loop.time() + give_up_s
        while not holds():
            left_s = None if deadline is None else deadline - loop.time()
            if left_s is not None and left_s <= 0:
                return
            self._heard.clear()
            heard = asyncio.create_task(self._heard.wait())
            children = [child for child in (*others, self._mirror) if child is not None]
            watched = [
                child.ended for child in children if not (child.ended.done() and child.ended.exception() is None)
            ]
            try:
                await asyncio.wait([heard, *watched], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                heard.cancel()
            for child in children:
                if child.ended.done():
                    child.ended.result()  # raises what went wrong with it
                    if not holds() and not self._may_end(child):
                        raise ChildFailed(f"the {child.name} ended too early")

    def _may_end(self, child: Child) -> bool:
        return (child.name == "encoder" and self._facts.encoded) or (child.name == "mirror" and self._facts.drained)

    async def _refresh(self) -> None:
        while True:
            self._view.refresh(self._facts)
            await asyncio.sleep(REFRESH_S)
