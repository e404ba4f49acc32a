"""The peers, each in its fairest dress: `put(item)`, `get()`, `close()`.

An adapter adds nothing where the peer's own method will do: `put` and `get` are then that very bound method. Where a
queue has to be made of something that is none (SQLite, LMDB, RocksDB), it is the shortest one that keeps order and
commits each operation before it returns.

Each is configured to be as fast as it can be while its items survive what we ask of `PROCESS`: a killed process.
The three that are asked for more, to stand beside `POWER`, say so in their name. `kill` and `power` are what an
acknowledged operation survives; `note` says what that costs or where it ends.
"""
from __future__ import annotations

import collections
import importlib.util
import queue
import sqlite3
import struct
from pathlib import Path
from typing import Any, ClassVar

_key = struct.Struct(">Q").pack  # big-endian: the order of the keys is the order of the numbers


class Contestant:
    name: ClassVar[str]
    module: ClassVar[str]
    kill: ClassVar[str] = "no"
    power: ClassVar[str] = "no"
    note: ClassVar[str] = ""

    put: Any
    get: Any

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    @classmethod
    def is_installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None


class Deque(Contestant):
    name = "collections.deque"
    module = "collections"
    note = "the floor: no lock, no wait, no bound"

    def __init__(self, folder: Path) -> None:
        items: collections.deque[Any] = collections.deque()
        self.put, self.get = items.append, items.popleft


class SimpleQueue(Contestant):
    name = "queue.SimpleQueue"
    module = "queue"
    note = "the floor of a queue that can wait"

    def __init__(self, folder: Path) -> None:
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put, self.get = items.put, items.get


class StandardQueue(Contestant):
    name = "queue.Queue"
    module = "queue"

    def __init__(self, folder: Path) -> None:
        items: queue.Queue[Any] = queue.Queue()
        self.put, self.get = items.put, items.get


class Queuelib(Contestant):
    name = "queuelib FifoDiskQueue"
    module = "queuelib"
    note = "its position is written on close only: after a kill it starts from an old one"

    def __init__(self, folder: Path) -> None:
        from queuelib import FifoDiskQueue

        self._queue = FifoDiskQueue(str(folder / "queue"))
        self.put, self.get = self._queue.push, self._queue.pop

    def close(self) -> None:
        self._queue.close()


class PersistQueueFile(Contestant):
    name = "persist-queue Queue (files)"
    module = "persistqueue"
    kill = "yes"
    note = "autosave on; chunks of 1000, for it syncs once a chunk; items pickled"

    def __init__(self, folder: Path) -> None:
        from persistqueue import Queue

        # Without a temporary directory on the same file system its rename of the position would not be atomic.
        aside = folder / "aside"
        aside.mkdir()
        self._queue = Queue(str(folder / "queue"), chunksize=1000, tempdir=str(aside), autosave=True)
        self.put, self.get = self._queue.put, self._queue.get

    def close(self) -> None:
        self._queue.headf.close()
        self._queue.tailf.close()


class PersistQueueSQLite(Contestant):
    name = "persist-queue SQLiteQueue"
    module = "persistqueue"
    kill = "yes"
    note = "auto_commit on; synchronous=NORMAL set on its connection (as shipped it is FULL: next row)"
    synchronous = "NORMAL"

    def __init__(self, folder: Path) -> None:
        from persistqueue import SQLiteQueue

        self._queue = SQLiteQueue(str(folder / "queue"), auto_commit=True)
        # It has no option for this; the row would otherwise show what a sync costs and not what the queue costs.
        self._queue._conn.execute(f"PRAGMA synchronous={self.synchronous}")
        self.put, self.get = self._queue.put, self._queue.get

    def close(self) -> None:
        self._queue.close()


class PersistQueueSQLiteFull(PersistQueueSQLite):
    name = "persist-queue SQLiteQueue, synced"
    power = "yes"
    note = "as shipped: synchronous=FULL"
    synchronous = "FULL"


class DiskcacheDeque(Contestant):
    name = "diskcache.Deque"
    module = "diskcache"
    kill = "yes"
    note = "as shipped: SQLite, WAL, synchronous=NORMAL"

    def __init__(self, folder: Path) -> None:
        from diskcache import Deque as PersistentDeque

        self._queue = PersistentDeque(directory=str(folder / "queue"))
        self.put, self.get = self._queue.append, self._queue.popleft

    def close(self) -> None:
        self._queue.cache.close()


class Litequeue(Contestant):
    name = "litequeue"
    module = "litequeue"
    kill = "yes"
    note = "as shipped: SQLite, WAL, synchronous=NORMAL; a get is pop() and done(), or the item stays locked"

    def __init__(self, folder: Path) -> None:
        from litequeue import LiteQueue

        self._queue = LiteQueue(str(folder / "queue.db"))
        self._pop, self._done = self._queue.pop, self._queue.done
        self.put = self._queue.put

    def get(self) -> Any:
        message = self._pop()
        self._done(message.message_id)
        return message.data

    def close(self) -> None:
        self._queue.conn.close()


class SQLite(Contestant):
    name = "SQLite, WAL"
    module = "sqlite3"
    kill = "yes"
    note = "sqlite3 of the standard library, one statement and transaction each, synchronous=NORMAL"
    synchronous = "NORMAL"

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "queue.db", isolation_level=None)
        self._execute = self._connection.execute
        self._execute("PRAGMA journal_mode=WAL")
        self._execute(f"PRAGMA synchronous={self.synchronous}")
        self._execute("CREATE TABLE queue (place INTEGER PRIMARY KEY, item BLOB NOT NULL)")

    def put(self, item: bytes) -> None:
        self._execute("INSERT INTO queue (item) VALUES (?)", (item,))

    def get(self) -> bytes:
        # The statement commits when its last row has been fetched, so fetch past the only one.
        rows = self._execute(
            "DELETE FROM queue WHERE place = (SELECT min(place) FROM queue) RETURNING item"
        ).fetchall()
        return rows[0][0]

    def close(self) -> None:
        self._connection.close()


class SQLiteFull(SQLite):
    name = "SQLite, WAL, synced"
    power = "yes"
    note = "the same with synchronous=FULL"
    synchronous = "FULL"


class LMDB(Contestant):
    name = "LMDB"
    module = "lmdb"
    kill = "yes"
    note = "a transaction each, sync=False, writemap=True (three times as fast here as without)"
    sync = False

    def __init__(self, folder: Path) -> None:
        import lmdb

        self._environment = lmdb.open(
            str(folder / "queue"), map_size=1 << 30, sync=self.sync, writemap=not self.sync
        )
        self._begin = self._environment.begin
        self._head = self._tail = 0  # the folder is new; a real queue would look for the first and the last key

    def put(self, item: bytes) -> None:
        with self._begin(write=True) as transaction:
            transaction.put(_key(self._tail), item, append=True)
        self._tail += 1

    def get(self) -> bytes:
        with self._begin(write=True) as transaction:
            item = transaction.pop(_key(self._head))
        self._head += 1
        return item

    def close(self) -> None:
        self._environment.close()


class LMDBSync(LMDB):
    name = "LMDB, synced"
    power = "yes"
    note = "a transaction each, as shipped: every commit synced"
    sync = True


class RocksDB(Contestant):
    name = "RocksDB (rocksdict)"
    module = "rocksdict"
    kill = "yes"
    note = "raw bytes, write-ahead log on and not synced; a get is a read and a delete"

    def __init__(self, folder: Path) -> None:
        from rocksdict import Options, Rdict

        self._db = Rdict(str(folder / "queue"), options=Options(raw_mode=True))
        self._write, self._read, self._delete = self._db.put, self._db.get, self._db.delete
        self._head = self._tail = 0

    def put(self, item: bytes) -> None:
        self._write(_key(self._tail), item)
        self._tail += 1

    def get(self) -> bytes:
        key = _key(self._head)
        item = self._read(key)
        self._delete(key)
        self._head += 1
        return item

    def close(self) -> None:
        self._db.close()


FLOOR: tuple[type[Contestant], ...] = (Deque, SimpleQueue, StandardQueue)
ON_DISK: tuple[type[Contestant], ...] = (
    Queuelib,
    LMDB,
    RocksDB,
    SQLite,
    DiskcacheDeque,
    Litequeue,
    PersistQueueFile,
    PersistQueueSQLite,
)
SYNCED: tuple[type[Contestant], ...] = (LMDBSync, SQLiteFull, PersistQueueSQLiteFull)
