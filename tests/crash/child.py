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
from collections.abc import Iterable
from typing import Any

from faults import stepping

from overspill._runtime import keeping

from .ledger import Ledger, look
from .worker import Watched, WatchedPriority, Worker, random_work


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


TOLD = (
    "begin_put", "acked_put", "refused_put", "begin_take", "took", "refused_take", "begin_removal", "acked_removal", "begin_lease", "leased", "back", "begin_moves", "moved", "acked_moves",
    "time", "wrote", "synced", "closed",
)  # fmt: skip
"""What is entered in the book, and so in the parent's."""


class Telling(Ledger):
    """Tells its parent everything: what is begun before it is, and what was acknowledged after."""

    fd = -1
    _within = False

    def tell(self, *event: Any) -> None:
        os.write(self.fd, json.dumps(event).encode() + b"\n")


def _telling(name: str) -> Any:
    entered = getattr(Ledger, name)

    def enter(self: Telling, *args: Any, **named: Any) -> Any:
        if self._within:
            return entered(self, *args, **named)
        given = [list(arg) if isinstance(arg, Iterable) and not isinstance(arg, str) else arg for arg in args]
        self._within = True
        try:
            if name.startswith("begin"):
                self.tell(name, given, named)
            result = entered(self, *given, **named)
            if not name.startswith("begin"):
                self.tell(name, given, named)
        finally:
            self._within = False
        return result

    return enter


for _name in TOLD:
    setattr(Telling, _name, _telling(_name))


class _Complaints(logging.Handler):
    """What the queue could only log (its background thread failed, something was damaged) is a failure here."""

    def __init__(self, fd: int) -> None:
        super().__init__(logging.ERROR)
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        text = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        os.write(self._fd, json.dumps(("error", f"{record.getMessage()}\n{text}"[-3000:])).encode() + b"\n")


def live(order: dict[str, Any], fd: int) -> None:
    ledger = Telling(power=order["durability"] == "POWER", memory=order["durability"] == "MEMORY")
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

    options: dict[str, Any] = {"_plain": order["plain"], **order.get("options", {})}
    if at_step:
        options["_disk_class"] = stepping(step)
    ledger.now_ns = order["now_ns"]
    face = WatchedPriority if order["levels"] else Watched
    worker = Worker(order["path"], ledger, told=told, background=order["background"], face=face, **options)
    q = worker.open()
    found = look(q)
    report = q.recovery
    ledger.tell("found", found, report.quarantined + report.quarantined_files, str(report), list(report.notes))
    # The child keeps a book of its own to know the line; what it found comes back as what somebody else put.
    ledger.adopt(found)
    random_work(worker, rng, order["steps"], reopen=not ledger.memory)
    die()


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
