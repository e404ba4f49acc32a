"""A queue in a registry of prometheus-client."""
from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from overspill import CircularBuffer, CorruptedData, HybridQueue, InvalidOption, ItemTooLarge, NotSerializable, Queue, QueueBroken, QueueClosed, QueueFull, RateLimit, RateLimited, StreamQueue
from overspill._store.files import Disk
from overspill.metrics import register, serve, unregister


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_metrics_true_shows_the_queue_in_the_default_registry_until_it_is_closed(tmp_path: Path) -> None:
    with HybridQueue("shown", tmp_path, metrics=True) as q:
        q.enqueue("x")
        assert REGISTRY.get_sample_value("overspill_items_enqueued_total", {"queue": "shown"}) == 1
    assert REGISTRY.get_sample_value("overspill_items_enqueued_total", {"queue": "shown"}) is None


@pytest.mark.parametrize("face", [CircularBuffer, Queue])
@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
def test_a_ring_and_a_drop_in_are_shown_by_the_same_option(face: Any, on_disk: bool, tmp_path: Path) -> None:
    with face(3, name="shown", disk_path=tmp_path if on_disk else None, metrics=True) as q:
        (q.push if face is CircularBuffer else q.put)(b"x")
        assert REGISTRY.get_sample_value("overspill_items_enqueued_total", {"queue": "shown"}) == 1
        with pytest.raises(InvalidOption, match="measured already"):
            face(3, name="shown", disk_path=tmp_path / "another" if on_disk else None, metrics=True)
    face(3, name="shown", disk_path=tmp_path / "another" if on_disk else None).close()  # what could not be shown let go of its folder
    assert REGISTRY.get_sample_value("overspill_items_enqueued_total", {"queue": "shown"}) is None
    with pytest.raises(InvalidOption, match="label"):
        face(3, metrics=True)


def test_a_face_is_shown_as_the_queue_beneath_it(registry: CollectorRegistry) -> None:
    with HybridQueue("awaited") as q, Queue(name="drop-in") as drop_in:
        q.enqueue(b"x")
        drop_in.put(b"x")
        for face in (q.aio, drop_in):
            register(face, registry)
        assert [registry.get_sample_value("overspill_items_waiting", {"queue": name}) for name in ("awaited", "drop-in")] == [1, 1]
        with serve([q.aio, drop_in], port=0) as endpoint:
            assert [queue["queue"] for queue in json.load(urlopen(f"{endpoint.url}/healthz"))["queues"]] == ["awaited", "drop-in"]
        for face in (q.aio, drop_in):
            unregister(face, registry)
        assert registry.get_sample_value("overspill_items_waiting", {"queue": "awaited"}) is None


def test_several_queues_share_a_registry_and_are_told_apart(registry: CollectorRegistry, tmp_path: Path) -> None:
    with HybridQueue("a", tmp_path) as a, HybridQueue("b", tmp_path) as b, HybridQueue() as nameless:
        for queue in (a, b):
            register(queue, registry)
        register(nameless, registry, name="scratch")
        b.enqueue("x")
        waiting = {name: registry.get_sample_value("overspill_items_waiting", {"queue": name}) for name in ("a", "b", "scratch")}
        assert waiting == {"a": 0, "b": 1, "scratch": 0}


def test_registering_twice_is_no_error_and_shows_the_queue_once(registry: CollectorRegistry, tmp_path: Path) -> None:
    with HybridQueue("a", tmp_path) as q:
        register(q, registry)
        register(q, registry)
        assert generate_latest(registry).decode().count('overspill_items_waiting{queue="a"}') == 1
        unregister(q, registry)
        unregister(q, registry)
        assert 'queue="a"' not in generate_latest(registry).decode()


def test_two_open_queues_cannot_have_one_name_and_the_second_is_told_what_to_do(registry: CollectorRegistry, tmp_path: Path) -> None:
    with HybridQueue("jobs", tmp_path / "here") as here, HybridQueue("jobs", tmp_path / "there") as there:
        register(here, registry)
        with pytest.raises(InvalidOption, match=r"register\(queue, name="):
            register(there, registry)
        register(there, registry, name="jobs-there")
        assert registry.get_sample_value("overspill_items_waiting", {"queue": "jobs-there"}) == 0


def test_a_queue_that_cannot_be_measured_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidOption, match="label"):
        HybridQueue(metrics=True)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "overspill.metrics.prometheus", raising=False)
    with pytest.raises(InvalidOption, match=r"overspill\[metrics\]"):
        HybridQueue("q", tmp_path, metrics=True)
    assert not (tmp_path / "q").exists()


def test_being_measured_keeps_no_queue_alive(registry: CollectorRegistry) -> None:
    q = HybridQueue("gone")
    register(q, registry)
    del q
    gc.collect()
    assert 'queue="gone"' not in generate_latest(registry).decode()


def test_nothing_is_called_between_two_scrapes(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    stats = HybridQueue.stats

    def counted(self: HybridQueue) -> Any:
        nonlocal looks
        looks += 1
        return stats(self)

    monkeypatch.setattr(HybridQueue, "stats", counted)
    q = HybridQueue("q")
    register(q, registry)
    for i in range(100):
        q.enqueue(i)
    assert looks == 0
    generate_latest(registry)
    assert looks == 1, "one look for all the metrics of a scrape"


def test_refusals_are_counted_by_reason(registry: CollectorRegistry) -> None:
    q = HybridQueue("q", memory_size=1, max_item_size=10, rate_limit=RateLimit(0.001, burst=2))
    register(q, registry)
    q.enqueue("in")
    for item, error in ((object(), NotSerializable), ("x" * 11, ItemTooLarge), ("full", QueueFull), ("goes too", QueueFull)):
        with pytest.raises(error):
            q.enqueue(item)
    q.dequeue()
    q.enqueue("in")
    with pytest.raises(RateLimited):
        q.enqueue("too fast")
    told = {reason: registry.get_sample_value("overspill_refusals_total", {"queue": "q", "reason": reason}) for reason in ("full", "rate", "too_large", "not_serializable")}
    assert told == {"full": 2, "rate": 1, "too_large": 1, "not_serializable": 1}
    with pytest.raises(InvalidOption):
        q.enqueue("misuse", priority=1000)
    assert sum(q.stats().refused.values()) == 5, "a wrong argument is no refusal"


def test_every_sync_is_counted_in_its_class_once(registry: CollectorRegistry, tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        register(q, registry)
        for i in range(5):
            q.enqueue(i)
            q.sync()
        latency = q.stats().sync_latency
        assert latency.count == sum(latency.counts) >= 5
        assert latency.last <= latency.longest <= latency.total
        upto = latency.upto()
        assert upto == sorted(upto) and upto[-1] == latency.count
        assert registry.get_sample_value("overspill_sync_duration_seconds_bucket", {"queue": "q", "le": "+Inf"}) == latency.count
        assert registry.get_sample_value("overspill_sync_duration_seconds_count", {"queue": "q"}) == latency.count


def test_durations_on_a_bound_belong_to_it_and_threads_lose_none() -> None:
    from overspill._runtime.sync_times import SyncTimes
    from overspill.stats import SYNC_BOUNDS_S

    times = SyncTimes()
    for bound in SYNC_BOUNDS_S:
        times.took(bound)
    times.took(11.0)
    assert times.look().counts == (1,) * (len(SYNC_BOUNDS_S) + 1)
    threads = [threading.Thread(target=lambda: [times.took(0.5) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look = times.look()
    assert look.count == 8000 + len(SYNC_BOUNDS_S) + 1
    assert (look.last, look.longest) == (0.5, 11.0)
    assert look.total == pytest.approx(4000 + sum(SYNC_BOUNDS_S) + 11)


class FailingDisk(Disk):
    fails = False

    def datasync(self, fd: int) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        super().datasync(fd)


def test_a_broken_queue_says_so_and_still_tells_what_it_held(registry: CollectorRegistry, tmp_path: Path) -> None:
    q = HybridQueue("q", tmp_path, _disk_class=FailingDisk, _background=False)
    register(q, registry)
    q.enqueue("x")
    q._disk.fails = True  # type: ignore[union-attr]
    with pytest.raises(QueueBroken):
        q.sync()
    state = {state: registry.get_sample_value("overspill_state", {"queue": "q", "state": state}) for state in ("open", "broken")}
    assert state == {"open": 0, "broken": 1}
    assert registry.get_sample_value("overspill_items_waiting", {"queue": "q"}) == 1
    q.close()


def test_a_queue_that_cannot_answer_hides_no_other(registry: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    class Mute:
        name = "mute"

        def stats(self) -> Any:
            raise OSError(5, "Input/output error")

    mute = Mute()
    q = HybridQueue("fine")
    register(mute, registry)
    register(q, registry)
    assert registry.get_sample_value("overspill_state", {"queue": "mute", "state": "unreadable"}) == 1
    assert registry.get_sample_value("overspill_state", {"queue": "fine", "state": "open"}) == 1
    assert registry.get_sample_value("overspill_items_waiting", {"queue": "mute"}) is None
    assert "could not be asked" in caplog.text


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_does_not_tell_its_parents_figures(registry: CollectorRegistry) -> None:
    q = HybridQueue("parents")
    register(q, registry)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, generate_latest(registry))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    assert b'queue="parents"' not in os.read(read, 1 << 20)
    os.close(read)
    assert 'queue="parents"' in generate_latest(registry).decode()


def test_other_metrics_of_the_process_are_left_alone(registry: CollectorRegistry) -> None:
    Counter("uploads", "Of the program itself", registry=registry).inc()
    q = HybridQueue("q")
    register(q, registry)
    assert registry.get_sample_value("uploads_total") == 1
    with pytest.raises(QueueClosed):
        q.close()
        q.enqueue("x")
    assert registry.get_sample_value("uploads_total") == 1


def test_stream_is_shown_as_every_other_queue_until_it_is_closed(registry: CollectorRegistry, tmp_path: Path) -> None:
    with StreamQueue("camera-7", 2, tmp_path, rate_limit=None) as stream:
        register(stream, registry)
        register(stream, registry)
        for _ in range(5):
            stream.enqueue(b"packet")
        stream.dequeue()
        with pytest.raises(NotSerializable):
            stream.enqueue("text")  # type: ignore[arg-type]
        seen = {
            name: registry.get_sample_value(f"overspill_{name}", {"queue": "camera-7"})
            for name in ("items_waiting", "memory_items", "disk_items", "disk_bytes", "pressure_ratio", "items_enqueued_total", "items_dequeued_total")
        }
        now = stream.stats()
        assert seen == {
            "items_waiting": now.depth, "memory_items": now.memory_items, "disk_items": now.disk_items, "disk_bytes": now.disk_bytes, "pressure_ratio": now.pressure,
            "items_enqueued_total": 5, "items_dequeued_total": 1,
        }  # fmt: skip
        assert now.depth == 4 and now.disk_bytes == now.disk_items * (4 + len(b"packet"))
        assert registry.get_sample_value("overspill_refusals_total", {"queue": "camera-7", "reason": "not_serializable"}) == 1
        unregister(stream, registry)
        assert registry.get_sample_value("overspill_items_waiting", {"queue": "camera-7"}) is None
        register(stream, registry, name="yard")
        assert registry.get_sample_value("overspill_items_waiting", {"queue": "yard"}) == 4
    assert registry.get_sample_value("overspill_items_waiting", {"queue": "yard"}) is None


def test_stream_found_again_after_a_kill_and_what_it_had_lost_are_counted(registry: CollectorRegistry, tmp_path: Path) -> None:
    left = b"".join(len(packet).to_bytes(4, "big") + packet for packet in (b"one", b"two", b"three"))
    (tmp_path / "camera-7.overflow").write_bytes(left)
    with StreamQueue("camera-7", 1, tmp_path) as stream:
        register(stream, registry)
        assert [registry.get_sample_value(f"overspill_{name}", {"queue": "camera-7"}) for name in ("recovery_items", "items_waiting")] == [3, 3]
        stats = stream._stream.stats()
        assert stats.balance == 0
        with open(tmp_path / "camera-7.overflow", "r+b") as file:
            file.seek(left.index(b"three") - 4)
            file.write(b"\xff\xff\xff\xff")
        with pytest.raises(CorruptedData):
            for _ in range(3):
                stream.dequeue_timeout(1)
        lost = registry.get_sample_value("overspill_items_quarantined_total", {"queue": "camera-7"})
        assert lost == stream.stats().lost == 1 and stream._stream.stats().balance == 0
