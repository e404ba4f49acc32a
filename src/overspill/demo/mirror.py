"""The queue's process: one `HybridQueue` with little memory, ingest on one side of it, the uploader on the other.

It is killed with SIGKILL while it runs and started again on the same folder. It keeps nothing of its own that would
have to survive: all state is in the queue and the spool.

A failure in any thread ends the process at once and loudly; what is in the queue is safe.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from types import FrameType

import msgspec

from overspill import HybridQueue, WhenFull

from .ingest import Ingest
from .lifeline import die_with_parent
from .places import Places
from .plan import Stream
from .reports import report
from .segment import Segment
from .spool import Spool
from .uploader import Uploader

PULSE_S = 0.1
LEASE_TIMEOUT_S = 120.0  # generous: only the death of this process should end a lease here


class MirrorOrder(msgspec.Struct, frozen=True):
    parent: int
    places: Places
    streams: tuple[Stream, ...]
    origin_port: int
    memory_size: int
    memory_limit: int
    max_disk_size: int


class Pulse:
    """Reports the queue's figures a few times a second, and once more at the end."""

    def __init__(self, queue: HybridQueue) -> None:
        self._queue = queue
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(PULSE_S):
            self.beat()

    def end(self) -> None:
        self._over.set()

    def beat(self) -> None:
        stats = self._queue.stats()
        report(
            "pulse",
            waiting=stats.waiting,
            in_flight=stats.in_flight,
            memory_items=stats.memory_items,
            memory_bytes=stats.memory_bytes,
            disk_items=stats.disk_items,
            disk_bytes=stats.disk_bytes,
            enqueued=stats.enqueued,
            dequeued=stats.dequeued,
            redelivered=stats.redelivered,
            spilled=stats.spilled,
            dropped=sum(stats.dropped.values()) + stats.expired,
            peak_resident_bytes=peak_resident_bytes(),
        )


def peak_resident_bytes() -> int:
    """The most memory this process has ever had, by the kernel's account."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not report VmHWM in /proc/self/status")


def mirror(order: MirrorOrder) -> None:
    stop = threading.Event()
    spool = Spool(order.places.spool, [stream.name for stream in order.streams])

    def end_early(signum: int, frame: FrameType | None) -> None:
        stop.set()
        spool.ring()

    signal.signal(signal.SIGTERM, end_early)
    report("started", pid=os.getpid(), peak_resident_bytes=peak_resident_bytes())
    order.places.queues.mkdir(parents=True, mode=0o700, exist_ok=True)
    with HybridQueue(
        "segments",
        order.places.queues,
        memory_size=order.memory_size,
        memory_limit=order.memory_limit,
        max_disk_size=order.max_disk_size,
        when_full=WhenFull.BLOCK,  # then segments wait in the spool
        serializer=Segment,
        lease_timeout=LEASE_TIMEOUT_S,
    ) as queue:
        found = queue.recovery
        report("opened", recovered=found.items, torn_bytes=found.torn_bytes, quarantined=found.quarantined)
        pulse = Pulse(queue)
        ingest = Ingest(queue, spool, order.streams, stop)
        uploader = Uploader(queue, spool, order.origin_port, stop)
        ingest.learn()  # before the uploader takes anything out
        threads = [threading.Thread(target=each.run, daemon=True) for each in (pulse, uploader)]
        for thread in threads:
            thread.start()
        ingest.run()
        if not stop.is_set():
            threads[1].join()
        pulse.end()
        threads[0].join()
        pulse.beat()
    report("drained" if not stop.is_set() else "stopped")


def end_loudly(failure: threading.ExceptHookArgs) -> None:
    traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    os._exit(1)


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=MirrorOrder)
    die_with_parent(order.parent)
    threading.excepthook = end_loudly
    mirror(order)


if __name__ == "__main__":
    main()
