"""Collect measurements one by one, write them to SQLite by the hundred: a transaction for each batch instead of one for each row.

A batch is full, or what came within 50 ms, so a quiet station is not kept waiting. Rows that must not be lost with their writer are leased, and acknowledged when they are committed: a writer that
dies in between gets them again, and the primary key keeps them from being there twice.
"""
import sqlite3
import sys
import tempfile
import threading
from pathlib import Path

from overspill import HybridQueue

ROWS, A_BATCH, SOON_S = 2_550, 100, 0.05
INSERT = "insert or ignore into measurements values (?, ?, ?)"


def measure(queue: HybridQueue, station: int) -> None:
    for n in range(ROWS):
        queue.enqueue((station, n, 20 + n % 17 / 10))


def write(queue: HybridQueue, file: Path, sizes: list[int], all_there: threading.Event) -> None:
    """Until the queue is closed and empty."""
    database = sqlite3.connect(file)
    for batch in queue.batches(n=A_BATCH, linger=SOON_S):
        with database:
            database.executemany(INSERT, batch)
        sizes.append(len(batch))
        if sum(sizes) == ROWS:
            all_there.set()
    database.close()


def write_and_die(queue: HybridQueue, file: Path) -> int:
    """One batch, which is committed and never acknowledged: the worst moment to die."""
    database = sqlite3.connect(file)
    batch = queue.lease_batch(A_BATCH)
    with database:
        database.executemany(INSERT, [delivery.item for delivery in batch])
    database.close()
    return len(batch)


def write_for_sure(queue: HybridQueue, file: Path) -> int:
    n = 0
    database = sqlite3.connect(file)
    while batch := queue.lease_batch(A_BATCH):
        with database:
            database.executemany(INSERT, [delivery.item for delivery in batch])
        for delivery in batch:
            delivery.ack()
        n += len(batch)
    database.close()
    return n


def main(folder: Path) -> None:
    file = folder / "climate.db"
    database = sqlite3.connect(file)
    database.execute("create table measurements (station integer, n integer, celsius real, primary key (station, n))")
    sizes, all_there = list[int](), threading.Event()
    with HybridQueue("measurements", folder, memory_size=200) as queue:
        writer = threading.Thread(target=write, args=(queue, file, sizes, all_there))
        writer.start()
        measure(queue, 1)
        if not all_there.wait(10):
            sys.exit("the last rows were not to wait for more")
    writer.join()
    print(f"{sum(sizes):,} rows in {len(sizes)} transactions; the last {sizes[-1]} did not wait for more")
    with HybridQueue("measurements", folder, memory_size=200) as queue:
        measure(queue, 2)
        print(f"{len(queue):,} rows wait; a writer commits {write_and_die(queue, file)} of them and dies")
    with HybridQueue("measurements", folder, memory_size=200) as queue:
        again = len(queue)
        print(f"the next one finds {again:,} and writes {write_for_sure(queue, file):,}")

    rows, numbers = database.execute("select count(*), sum(n) from measurements").fetchone()
    database.close()
    print(f"in the database: {rows:,} rows")
    if rows != 2 * ROWS or numbers != 2 * sum(range(ROWS)):
        sys.exit("rows are missing, or there twice")
    if max(sizes) != A_BATCH or again != ROWS:
        sys.exit(f"batches were to be of {A_BATCH}, and the dead writer's to come again: {sizes}, {again}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
