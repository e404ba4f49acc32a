"""The process that is killed, and the one that makes such processes.

`python -m crash.child FD` waits for orders on its standard input, one JSON object a line, forks a child for each (with everything imported already, so that a life costs a millisecond), and says
`pid …` and `exit …`. The child opens the queue, says what it found, and works at random; it writes what it is about to do and what was acknowledged to FD, a line each. It
is killed by its parent, or by itself: right after an acknowledged call, or before or after the Nth change of a file, be that in the middle of a recovery.
"""
from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from faults import stepping

from overspill import Durability, QueueFull
from overspill._runtime import keeping

from .ledger import Ledger, key_of
from .worker import Worker, random_work


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


class Telling(Ledger):
    """Tells its parent everything, before and after."""

    fd = -1

    def tell(self, *event: Any) -> None:
        os.write(self.fd, json.dumps(event).encode() + b"\n")

    def begin_put(self, sizes: Sequence[int], priority: int = 128, front: bool = False) -> list[bytes]:
        self.tell("begin_put", list(sizes), priority, front)
        return super().begin_put(sizes, priority, front)

    def acked_put(self) -> None:
        super().acked_put()
        self.tell("acked_put")

    def refused_put(self) -> None:
        super().refused_put()
        self.tell("refused_put")

    def begin_take(self, n: int = 1) -> None:
        self.tell("begin_take", n)
        super().begin_take(n)

    def took(self, keys: list[int]) -> None:
        super().took(keys)
        self.tell("took", keys)

    def refused_take(self) -> None:
        super().refused_take()
        self.tell("refused_take")

    def begin_lease(self) -> None:
        self.tell("begin_lease")
        super().begin_lease()

    def leased(self, key: int, attempts: int) -> int:
        super().leased(key, attempts)
        self.tell("leased", key, attempts)
        return key

    def begin_ack(self, key: int) -> None:
        self.tell("begin_ack", key)
        super().begin_ack(key)

    def acked_ack(self) -> None:
        super().acked_ack()
        self.tell("acked_ack")

    def acked_nack(self, key: int) -> None:
        super().acked_nack(key)
        self.tell("acked_nack", key)

    def closed(self) -> None:
        super().closed()
        self.tell("closed")


class _Complaints(logging.Handler):
    """What the queue could only log (its background thread failed, something was damaged) is a failure here."""

    def __init__(self, fd: int) -> None:
        super().__init__(logging.ERROR)
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        text = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        os.write(self._fd, json.dumps(("error", f"{record.getMessage()}\n{text}"[-3000:])).encode() + b"\n")


def memory_work(worker: Worker, ledger: Telling, rng: random.Random, steps: int) -> None:
    """One line, first in first out: what is on disk only is its front, and that is what must survive."""
    for _ in range(steps):
        try:
            move = rng.choice(("put", "put", "put", "put", "get", "get", "flush"))
            if move == "put":
                worker.put(rng.choice((10, 100, 2000)))
            elif move == "flush" and rng.random() < 0.8:
                worker.q.flush_oldest(rng.randrange(1, 4))
            else:
                getattr(worker, move)()
        except QueueFull:
            pass
        ledger.tell("spilled", worker.q.disk_size)


def live(order: dict[str, Any], fd: int) -> None:
    ledger = Telling(power=order["durability"] == "POWER")
    ledger.fd, ledger.next_key = fd, order["next_key"]
    rng = random.Random(order["seed"])
    logging.getLogger("overspill").addHandler(_Complaints(fd))
    if order["restless"]:
        # The background thread gets in between everywhere, and has much to do.
        sys.setswitchinterval(2e-5)
        keeping._COMPACT_EVERY_S, keeping._SEAL_AFTER_S = 0.0, 0.002
    after_acks, at_step = order.get("after_acks"), order.get("at_step")
    count = {"acks": 0, "steps": 0}

    def told(_: str) -> None:
        count["acks"] += 1
        if count["acks"] == after_acks:
            die()

    def step(_: str) -> None:
        count["steps"] += 1
        if count["steps"] == at_step:
            die()

    options: dict[str, Any] = {"durability": Durability[order["durability"]], "_plain": order["plain"], **order.get("options", {})}
    if at_step:
        options["_disk_class"] = stepping(step)
    worker = Worker(order["path"], ledger, told=told, background=order["background"], **options)
    q = worker.open()
    items = list(q)
    keys = [key_of(item) for item in items]
    assert q.stats().balance == 0 and len(q) == len(keys), (q.stats(), keys)
    report = q.recovery
    ledger.tell("found", keys, [len(item) for item in items], report.quarantined + report.quarantined_files, str(report), list(report.notes))
    # The child keeps a book of its own to know the line; what came back comes back as one that was put by somebody else.
    from .ledger import SOLID, Entry

    for key, item, (priority, front) in zip(keys, items, order_of(q, keys, order), strict=True):
        ledger.entries[key] = Entry(key, len(item), priority, front, key, put=SOLID)
        ledger.entries[key].leases = 1 << 20
    ledger.line = [ledger.entries[key] for key in keys]
    if order["durability"] == "MEMORY":
        memory_work(worker, ledger, rng, order["steps"])
    else:
        random_work(worker, rng, order["steps"])
    die()


def order_of(q: Any, keys: list[int], order: dict[str, Any]) -> list[tuple[int, bool]]:
    return [tuple(order["known"][str(key)]) if str(key) in order["known"] else (128, False) for key in keys]  # type: ignore[misc]


def main() -> None:
    fd = int(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                live(order, fd)
            except BaseException:
                os.write(fd, json.dumps(("error", traceback.format_exc()[-3000:])).encode() + b"\n")
            finally:
                os._exit(1)
        print("pid", pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print("exit", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
