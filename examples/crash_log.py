"""A logging handler whose last lines survive the crash that they are about.

A log in a file is buffered, or synced line by line and slow. Here each record is in the kernel when `log.info` returns, at some µs; whoever comes after the crash takes the records
out, ships them, and only then are they gone.
"""
import logging
import os
import signal
import subprocess
import sys
import tempfile

from overspill import HybridQueue, QueueEmpty


class CrashLog(logging.Handler):
    """Puts records into a queue."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.queue = HybridQueue("log", folder, memory_size=100)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.queue.enqueue({"at": record.created, "level": record.levelname, "text": self.format(record)})
        except Exception:
            self.handleError(record)


def crash(folder: str) -> None:
    """A program with a bug."""
    log = logging.getLogger("engine")
    log.setLevel(logging.INFO)
    log.addHandler(CrashLog(folder))
    for revolution in range(1, 1000):
        log.info("revolution %d, all is well", revolution)
        print(revolution, flush=True)  # so that we know what it has done
        if revolution == 777:
            try:
                raise ZeroDivisionError("the piston is gone")
            except ZeroDivisionError:
                log.exception("this does not look good")
            os.kill(os.getpid(), signal.SIGKILL)  # no handler, no flush, no goodbye


def main(folder: str) -> None:
    engine = subprocess.run([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True)
    revolutions = len(engine.stdout.split())
    print(f"the engine ended with signal {-engine.returncode} after revolution {revolutions}")
    shipped = []
    with HybridQueue("log", folder) as log:
        print(f"in its log: {log.recovery}")
        while True:
            try:
                with log.lease(timeout=0) as delivery:  # not gone before it is shipped
                    shipped.append(delivery.item)
            except QueueEmpty:
                break
    for record in shipped[-2:]:
        print(f"  {record['level']}: {record['text']}")
    if [record["text"] for record in shipped[:-1]] != [f"revolution {n}, all is well" for n in range(1, revolutions + 1)]:
        sys.exit("a line is missing")
    if "ZeroDivisionError: the piston is gone" not in shipped[-1]["text"]:
        sys.exit("the last words are missing")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        crash(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
