"""Watch a queue at work: alarms when memory fills up, a line of figures now and then, and accounts that balance.

A burst comes in faster than it can be worked off. The alarms go off while memory fills, the rest waits on disk, and the figures say when it is over.
"""
import sys
import tempfile
import threading
import time

from overspill import HybridQueue, QueueClosed, QueueStats

BURST = 3000


def produce(queue: HybridQueue) -> None:
    for n in range(0, BURST, 20):
        queue.enqueue_batch([{"event": n + i, "text": "something has happened " * 4} for i in range(20)])
        time.sleep(0.0005)


def consume(queue: HybridQueue) -> None:
    try:
        while True:
            queue.dequeue()
            time.sleep(0.00005)
    except QueueClosed:
        return


def show(stats: QueueStats) -> None:
    oldest = "" if stats.oldest_age is None else f"{1000 * stats.oldest_age:5.0f} ms"
    print(
        f"{stats.enqueued:6,} in {stats.dequeued:6,} out  {stats.memory_items:4,} in memory {stats.disk_items:5,} on disk"
        f"  pressure {stats.pressure:4.1f}  {stats.disk_bytes / 2**20:3.0f} MiB  oldest {oldest}"
    )


def main(folder: str) -> None:
    alarms: list[float] = []
    with HybridQueue("events", folder, memory_size=500) as queue:
        queue.on_memory_pressure(alarms.append, thresholds=(0.7, 0.9))
        producer = threading.Thread(target=produce, args=(queue,))
        consumer = threading.Thread(target=consume, args=(queue,))
        producer.start()
        consumer.start()
        highest = 0.0
        while queue.stats().dequeued < BURST:
            producer.join(timeout=0.05) if producer.is_alive() else time.sleep(0.05)
            show(stats := queue.stats())
            highest = max(highest, stats.pressure)
        queue.close(drain=5)
        consumer.join()
    print("alarms at", " and ".join(f"{usage:.0%}" for usage in alarms[:2]), "of memory")
    if len(alarms) < 2 or highest <= 1:
        sys.exit("the burst was to fill memory and more")
    if stats.dequeued != BURST or stats.balance != 0:
        sys.exit(f"the accounts do not balance: {stats}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
