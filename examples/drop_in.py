"""Replace `queue.Queue` by changing one line, and then let it survive: the same producers and workers, with `join` and `task_done`, before and after.

With a folder, what was put and not yet taken is there when the program starts again.
"""
import logging
import logging.handlers
import queue
import sys
import tempfile
import threading
from typing import Any

import overspill


def count_words(jobs: Any, workers: int = 3) -> dict[str, int]:
    """As one has always written it."""
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def work() -> None:
        while (text := jobs.get()) is not None:
            with lock:
                for word in text.split():
                    counts[word] = counts.get(word, 0) + 1
            jobs.task_done()
        jobs.task_done()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for n in range(300):
        jobs.put(f"the queue is {'full' if n % 3 else 'empty'}")
    for _ in threads:
        jobs.put(None)
    jobs.join()
    return counts


def log_through(records: Any) -> list[str]:
    """The standard library's own users of a queue take it, too."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    listener = logging.handlers.QueueListener(records, Lines())
    listener.start()
    log = logging.getLogger("drop-in")
    log.addHandler(logging.handlers.QueueHandler(records))
    log.warning("%d messages and counting", 1)
    log.warning("%d messages and counting", 2)
    listener.stop()
    return lines


def main(folder: str) -> None:
    before, after = count_words(queue.Queue(maxsize=20)), count_words(overspill.Queue(maxsize=20))
    print("queue.Queue:    ", before)
    print("overspill.Queue:", after)
    lines = log_through(overspill.Queue())
    print("logged:", lines)
    with overspill.Queue(name="jobs", disk_path=folder) as jobs:
        for n in range(5):
            jobs.put(n)
        first = jobs.get()
    with overspill.Queue(name="jobs", disk_path=folder) as jobs:
        rest = [jobs.get_nowait() for _ in range(jobs.qsize())]
    print(f"got {first}, then the program ended; at its next start there are {rest}")
    if before != after or len(lines) != 2 or [first, *rest] != [0, 1, 2, 3, 4]:
        sys.exit("that was to be the same")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
