"""Collect measurements one by one, write them to SQLite by the hundred: a transaction for each batch instead of one for each row.

Rows are acknowledged when they are committed. A writer that dies in between gets them again, and the primary key keeps them from being there twice.
"""
import sqlite3
import sys
import tempfile
import threading
from pathlib import Path

from overspill import HybridQueue, QueueClosed

STATIONS, ROWS, A_BATCH, DIES_AFTER = (1, 2), 2_500, 100, 5


def measure(queue: HybridQueue, station: int) -> None:
    for n in range(ROWS):
        queue.enqueue((station, n, 20 + n % 17 / 10))


def write(queue: HybridQueue, file: Path, sizes: list[int], dies_after: int | None = None) -> None:
    database = sqlite3.connect(file)
    try:
        while dies_after is None or len(sizes) < dies_after:
            batch = queue.lease_batch(A_BATCH, timeout=None)  # waits for the first, then takes what is there
            with database:
                database.executemany("insert or ignore into measurements values (?, ?, ?)", [delivery.item for delivery in batch])
            sizes.append(len(batch))
            if len(sizes) == dies_after:
                break  # committed and not acknowledged: the worst moment
            for delivery in batch:
                delivery.ack()
    except QueueClosed:  # and empty
        pass
    finally:
        database.close()


def main(folder: Path) -> None:
    file, sizes = folder / "climate.db", list[int]()
    database = sqlite3.connect(file)
    database.execute("create table measurements (station integer, n integer, celsius real, primary key (station, n))")
    with HybridQueue("measurements", folder, memory_size=200) as queue:
        stations = [threading.Thread(target=measure, args=(queue, station)) for station in STATIONS]
        for station in stations:
            station.start()
        write(queue, file, sizes, dies_after=DIES_AFTER)
        for station in stations:
            station.join()
        print(f"the writer dies after {sum(sizes):,} rows in {len(sizes)} transactions; {len(queue):,} rows wait, {queue.stats().in_flight} are in its hands")
    with HybridQueue("measurements", folder, memory_size=200) as queue:
        print(f"the next one finds {len(queue):,}")
        writer = threading.Thread(target=write, args=(queue, file, sizes))
        writer.start()
        queue.close(drain=30)
        writer.join()
    rows, numbers = database.execute("select count(*), sum(n) from measurements").fetchone()
    database.close()
    print(f"{rows:,} rows in {len(sizes)} transactions")
    if rows != len(STATIONS) * ROWS or numbers != len(STATIONS) * sum(range(ROWS)):
        sys.exit("rows are missing, or there twice")
    if sum(sizes) <= rows or max(sizes) != A_BATCH:
        sys.exit(f"some were to come twice, and batches to be of {A_BATCH}: {sizes}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
