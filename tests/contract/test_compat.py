"""`overspill.Queue` where `queue.Queue` was: CPython's own tests, its two best-known users, shutdown, and what a disk adds.

Of `test.test_queue` everything that is about `queue.Queue` runs against ours: `QueueTest` and `FailingQueueTest`. What is about `LifoQueue`, the heap of `PriorityQueue` and `SimpleQueue` is
about other classes.
"""
from __future__ import annotations

import concurrent.futures
import logging
import logging.handlers
import pickle
import queue
import threading
import unittest
import warnings
from pathlib import Path
from typing import Any

import pytest

import overspill
from overspill import InvalidOption, NotSerializable, QueueClosed, QueueEmpty, QueueFull, compat

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    test_queue = pytest.importorskip("test.test_queue", reason="this Python comes without its own tests")


def durable(path: Path) -> type[compat.Queue]:
    numbers = iter(range(10**6))

    class Queue(compat.Queue):
        """A new folder for each."""

        def __init__(self, maxsize: int = 0) -> None:
            super().__init__(maxsize, disk_path=path, name=f"q{next(numbers)}", memory_size=2)

    return Queue


class ours:
    """The module, as far as CPython's tests look at it."""

    Queue, Empty, Full, ShutDown = compat.Queue, compat.Empty, compat.Full, compat.ShutDown


def cases() -> list[tuple[type[Any], str]]:
    return [(mixin, name) for mixin in (test_queue.QueueTest, test_queue.FailingQueueTest) for name in unittest.TestLoader().getTestCaseNames(mixin)]


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize(("mixin", "name"), cases(), ids=lambda part: getattr(part, "__name__", part))
def test_cpythons_own_suite(mixin: type[Any], name: str, kind: str, quick_path: Path) -> None:
    module = ours if kind == "memory" else type("module", (ours,), {"Queue": durable(quick_path)})
    case = type("OurTest", (mixin, unittest.TestCase), {"queue": module})(name)
    result = unittest.TestResult()
    case.run(result)
    assert result.testsRun == 1 and not result.skipped
    assert result.wasSuccessful(), result.errors + result.failures


def test_nothing_of_cpythons_suite_for_queue_was_overlooked() -> None:
    """Every test class there that is made of a mixin is one of these, or is about a class that we do not offer."""
    mixins = {name for name, thing in vars(test_queue).items() if isinstance(thing, type) and name.endswith("Test") and not issubclass(thing, unittest.TestCase)}
    assert mixins <= {"QueueTest", "FailingQueueTest", "LifoQueueTest", "PriorityQueueTest", "BaseSimpleQueueTest"}
    assert len(cases()) >= 7


@pytest.fixture(params=["memory", "disk"])
def new_queue(request: pytest.FixtureRequest, quick_path: Path) -> Any:
    return compat.Queue if request.param == "memory" else durable(quick_path)


# --- the same as `queue.Queue`, said by both


@pytest.mark.parametrize("make", [queue.Queue, compat.Queue], ids=["stdlib", "ours"])
def test_code_written_for_the_one_works_with_the_other(make: Any) -> None:
    q = make(maxsize=2)
    q.put("a")
    q.put("b", block=True, timeout=1)
    with pytest.raises(queue.Full):
        q.put("c", False)
    with pytest.raises(queue.Full):
        q.put_nowait("c")
    assert (q.qsize(), q.empty(), q.full(), q.unfinished_tasks, q.maxsize, bool(q)) == (2, False, True, 2, 2, True)
    assert (q.get(), q.get_nowait()) == ("a", "b")
    for get in (lambda: q.get(False), q.get_nowait, lambda: q.get(timeout=0.001), lambda: q.get(True, 0)):
        with pytest.raises(queue.Empty):
            get()
    q.task_done()
    q.task_done()
    q.join()
    with pytest.raises(ValueError):
        q.task_done()
    with pytest.raises(ValueError, match="non-negative"):
        q.get(timeout=-1)
    assert make[int]


def test_any_object_comes_out_as_the_very_object() -> None:
    things: list[Any] = [object(), lambda: None, threading.Lock(), [], None, 1, "x", (n for n in ())]
    q = compat.Queue()
    for thing in things:
        q.put(thing)
    assert all(q.get() is thing for thing in things)


def test_the_rule_of_the_hybrid_queue_stays_what_it_is() -> None:
    with overspill.HybridQueue() as q, pytest.raises(NotSerializable):
        q.enqueue(object())


def test_the_inner_parts_of_cpythons_class_are_missed_loudly() -> None:
    q = compat.Queue()
    for name in ("queue", "mutex", "not_empty", "not_full", "all_tasks_done"):
        assert not hasattr(q, name)
        with pytest.raises(AttributeError, match=rf"no '{name}' \("):
            getattr(q, name)
    with pytest.raises(AttributeError, match="no 'puts'$"):
        getattr(q, "puts")  # noqa: B009


def test_a_larger_maxsize_lets_in_who_waits(new_queue: Any) -> None:
    q = new_queue(1)
    q.put("a")
    waiting = threading.Thread(target=q.put, args=("b",))
    waiting.start()
    while not q._line._n_makers:
        waiting.join(0.001)
    q.maxsize = 2
    waiting.join()
    assert q.qsize() == 2
    q.maxsize = 0
    for n in range(20):
        q.put_nowait(n)
    assert q.qsize() == 22 and not q.full()
    q.close()


# --- shutdown, as of 3.13


def test_after_shutdown_what_is_left_can_be_taken_and_nothing_put(new_queue: Any) -> None:
    q = new_queue()
    q.put("a")
    q.put("b")
    q.shutdown()
    assert q.is_shutdown
    for put in (lambda: q.put("c"), lambda: q.put_nowait("c")):
        with pytest.raises(compat.ShutDown):
            put()
    assert [q.get(), q.get_nowait()] == ["a", "b"]
    for get in (q.get, q.get_nowait, lambda: q.get(timeout=10)):
        with pytest.raises(compat.ShutDown):
            get()
    q.task_done()
    q.task_done()
    q.join()
    q.shutdown()
    q.close()


def test_an_immediate_shutdown_leaves_nothing_to_take_and_nothing_to_wait_for(new_queue: Any) -> None:
    q = new_queue()
    for n in range(3):
        q.put(n)
    assert q.get() == 0
    q.shutdown(immediate=True)
    for use in (q.get, q.get_nowait, lambda: q.put(1)):
        with pytest.raises(compat.ShutDown):
            use()
    assert q.unfinished_tasks == 1, "the one that was taken"
    q.task_done()
    q.join()


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_wakes_whoever_waits(new_queue: Any, immediate: bool) -> None:
    full, empty = new_queue(1), new_queue()
    full.put("a")
    raised: list[str] = []

    def use(what: str, call: Any) -> None:
        try:
            call()
        except QueueClosed:
            raised.append(what)

    threads = [threading.Thread(target=use, args=("put", lambda: full.put("b"))), threading.Thread(target=use, args=("get", empty.get))]
    for thread in threads:
        thread.start()
    while not (full._line._n_makers and empty._line._n_takers):
        threads[0].join(0.001)
    full.shutdown(immediate)
    empty.shutdown(immediate)
    for thread in threads:
        thread.join()
    assert sorted(raised) == ["get", "put"]
    for q in (full, empty):
        q.close()


def test_an_immediate_shutdown_lets_go_whoever_joins(new_queue: Any) -> None:
    q = new_queue()
    q.put("never taken")
    joining = threading.Thread(target=q.join)
    joining.start()
    q.shutdown(immediate=True)
    joining.join()


def test_the_error_is_the_standard_librarys_where_it_has_one() -> None:
    assert issubclass(compat.Empty, queue.Empty) and issubclass(compat.Full, queue.Full)
    assert (compat.Empty, compat.Full, compat.ShutDown) == (QueueEmpty, QueueFull, QueueClosed)
    if hasattr(queue, "ShutDown"):
        assert issubclass(compat.ShutDown, queue.ShutDown)
    assert isinstance(pickle.loads(pickle.dumps(QueueClosed("gone"))), QueueClosed)


# --- its two best-known users


def test_it_is_an_executors_work_queue() -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        pool._work_queue = compat.Queue()  # type: ignore[assignment]
        assert sorted(pool.map(lambda n: n * n, range(200))) == sorted(n * n for n in range(200))
        assert pool.submit(pow, 2, 10).result() == 1024
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 2, 2)


def test_an_executor_cancels_what_waits_in_it() -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool._work_queue = compat.Queue()  # type: ignore[assignment]
    go = threading.Event()
    futures = [pool.submit(go.wait), *(pool.submit(int) for _ in range(5))]
    threading.Timer(0.0, lambda: (pool.shutdown(wait=False, cancel_futures=True), go.set())).start()
    assert futures[0].result() is True
    pool.shutdown()
    assert any(future.cancelled() for future in futures[1:]) or all(future.done() for future in futures)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def a_logger(q: compat.Queue) -> logging.Logger:
    logger = logging.Logger("ours")
    logger.addHandler(logging.handlers.QueueHandler(q))  # type: ignore[arg-type]
    return logger


def test_it_is_the_queue_between_a_handler_and_a_listener() -> None:
    q, kept = compat.Queue(), Kept()
    listener = logging.handlers.QueueListener(q, kept)  # type: ignore[arg-type]
    listener.start()
    logger = a_logger(q)
    for n in range(100):
        logger.warning("message %d", n)
    listener.stop()
    assert kept.said == [f"message {n}" for n in range(100)]


def test_log_records_on_disk_wait_for_the_next_listener(tmp_path: Path) -> None:
    with compat.Queue(name="log", disk_path=tmp_path, serializer="pickle") as q:
        logger = a_logger(q)
        for n in range(20):
            logger.warning("message %d", n)
    with compat.Queue(name="log", disk_path=tmp_path, serializer="pickle") as q:
        kept = Kept()
        listener = logging.handlers.QueueListener(q, kept)  # type: ignore[arg-type]
        listener.start()
        listener.stop()
        assert kept.said == [f"message {n}" for n in range(20)]


# --- with a disk


def test_on_disk_what_is_left_is_there_again_and_as_many_tasks_are_unfinished(tmp_path: Path) -> None:
    with compat.Queue(name="jobs", disk_path=tmp_path, memory_size=2) as q:
        for n in range(10):
            q.put({"job": n})
        assert q.get() == {"job": 0}
        assert q.unfinished_tasks == 10
        q.task_done()
    with compat.Queue(name="jobs", disk_path=tmp_path) as q:
        assert (q.qsize(), q.unfinished_tasks) == (9, 9)
        for n in range(1, 10):
            assert q.get() == {"job": n}
            q.task_done()
        q.join()


def test_on_disk_maxsize_counts_what_is_in_memory_and_what_is_not(tmp_path: Path) -> None:
    with compat.Queue(5, name="jobs", disk_path=tmp_path, memory_size=2) as q:
        for n in range(5):
            q.put_nowait(n)
        assert q.full()
        with pytest.raises(queue.Full, match="max_items=5"):
            q.put_nowait("x")
    with compat.Queue(3, name="jobs", disk_path=tmp_path) as q:
        assert q.full() and q.qsize() == 5
        with pytest.raises(queue.Full):
            q.put("x", timeout=0)


def test_on_disk_an_immediate_shutdown_loses_nothing(tmp_path: Path) -> None:
    q = compat.Queue(name="jobs", disk_path=tmp_path)
    q.put("kept")
    q.shutdown(immediate=True)
    with compat.Queue(name="jobs", disk_path=tmp_path) as q:
        assert q.get() == "kept"


def test_on_disk_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with compat.Queue(name="jobs", disk_path=tmp_path) as q:
        with pytest.raises(NotSerializable):
            q.put(object())
        assert q.unfinished_tasks == 0
    with pytest.raises(InvalidOption, match="name"):
        compat.Queue(disk_path=tmp_path)


def test_what_has_expired_is_nobodys_task(tmp_path: Path) -> None:
    from overspill._runtime.clock import ManualClock

    clock = ManualClock()
    q = compat.Queue(ttl=10, _clock=clock, _background=False)
    q.put("a")
    clock.jump(11)
    with pytest.raises(queue.Empty):
        q.get_nowait()
    assert q.unfinished_tasks == 0
    q.join()
