"""The endpoint over HTTP: what it answers, to whom, and what it does not let happen to itself."""
from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from overspill import Durability, HybridQueue, InvalidOption, KiB, MiB, QueueBroken, QueueFull
from overspill._store.files import Disk
from overspill._store.observation import Reader
from overspill.metrics import serve
from overspill.metrics.endpoint import Endpoint
from overspill.metrics.folder import Folders


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def values(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix("overspill_"), sample.labels["queue"]): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples if set(sample.labels) == {"queue"}
    }  # fmt: skip


class FailingDisk(Disk):
    fails = False

    def datasync(self, fd: int) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        super().datasync(fd)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[HybridQueue]:
    with HybridQueue("jobs", tmp_path, max_disk_size=512 * KiB, _disk_class=FailingDisk, _background=False) as queue:
        yield queue


@pytest.fixture
def endpoint(queue: HybridQueue) -> Iterator[Endpoint]:
    with serve([queue], port=0) as endpoint:
        yield endpoint


def test_prometheus_finds_the_queue_and_nothing_else_of_the_process(queue: HybridQueue, endpoint: Endpoint) -> None:
    queue.enqueue("x")
    status, text = get(f"{endpoint.url}/metrics")
    assert status == 200 and values(text)["items_waiting", "jobs"] == 1
    assert {family.name.split("_")[0] for family in text_string_to_metric_families(text)} == {"overspill"}


def test_openmetrics_is_spoken_to_who_asks_for_it(endpoint: Endpoint) -> None:
    asked = urllib.request.Request(f"{endpoint.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")


def test_a_registry_of_the_program_is_served_whole(queue: HybridQueue) -> None:
    registry = CollectorRegistry()
    Counter("uploads", "Of the program itself", registry=registry).inc()
    with serve([queue], port=0, registry=registry) as endpoint:
        text = get(f"{endpoint.url}/metrics")[1]
        assert "uploads_total 1.0" in text and 'overspill_items_waiting{queue="jobs"}' in text


def test_health_is_200_while_all_is_well(queue: HybridQueue, endpoint: Endpoint) -> None:
    queue.enqueue("x")
    status, text = get(f"{endpoint.url}/healthz")
    told = json.loads(text)
    assert status == 200 and told["healthy"] is True
    assert [(each["queue"], each["state"], each["waiting"], each["why"]) for each in told["queues"]] == [("jobs", "open", 1, [])]


def test_health_names_the_queue_whose_disk_is_nearly_full_which_a_restart_would_not_cure(queue: HybridQueue, endpoint: Endpoint) -> None:
    with pytest.raises(QueueFull):
        while True:
            queue.enqueue(bytes(16 * KiB))
    status, text = get(f"{endpoint.url}/healthz")
    (told,) = json.loads(text)["queues"]
    assert status == 503 and told["queue"] == "jobs" and "max_disk_size" in told["why"][0]
    assert get(f"{endpoint.url}/livez")[0] == 200
    with serve([queue], port=0, full_at=None) as lenient:
        assert get(f"{lenient.url}/healthz")[0] == 200


def test_a_broken_queue_is_neither_well_nor_alive(queue: HybridQueue, endpoint: Endpoint) -> None:
    queue.enqueue("x")
    queue._disk.fails = True  # type: ignore[union-attr]
    with pytest.raises(QueueBroken):
        queue.sync()
    for path in ("healthz", "livez"):
        status, text = get(f"{endpoint.url}/{path}")
        assert status == 503 and "open it again" in json.loads(text)["queues"][0]["why"][0]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../../etc/passwd", "/metrics/../metrics", "/%2e%2e/", "/healthz/jobs", "*"])
def test_there_are_three_paths_and_no_way_to_a_file(endpoint: Endpoint, path: str) -> None:
    status, text = said(endpoint, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert status == 404
    assert "/metrics" in text and "root:" not in text


def said(endpoint: Endpoint, sent: bytes) -> tuple[int, str]:
    """What the server answers to these bytes, as they are."""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=10) as connection:
        try:
            connection.sendall(sent)
        except ConnectionError:
            pass  # it answered and hung up before it had heard everything
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head.split()[1:] else 0, body.decode()


@pytest.mark.parametrize("sent", [
    b"GET /" + b"x" * 100_000, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"\x16\x03\x01 hello\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"GET\r\n\r\n",
])  # fmt: skip
def test_what_is_no_decent_request_is_refused_and_the_next_one_is_answered(endpoint: Endpoint, sent: bytes) -> None:
    status, _ = said(endpoint, sent)
    assert status == 0 or status >= 400  # 0: the kernel threw the answer away, since more was still being sent
    assert get(f"{endpoint.url}/livez")[0] == 200


def test_clients_that_say_nothing_do_not_keep_a_scraper_out(endpoint: Endpoint) -> None:
    silent = [socket.create_connection((endpoint.host, endpoint.port), timeout=10) for _ in range(40)]
    try:
        assert get(f"{endpoint.url}/livez")[0] == 200
        assert silent[0].recv(1) == b"", "the oldest gave way"
    finally:
        for connection in silent:
            connection.close()


def test_closing_frees_the_port_and_ends_the_thread(queue: HybridQueue) -> None:
    endpoint = serve([queue], port=0)
    with socket.create_connection((endpoint.host, endpoint.port), timeout=10) as waiting:
        endpoint.close()
        endpoint.join()
        with contextlib.suppress(ConnectionResetError):  # it had not been accepted yet
            assert waiting.recv(1) == b""
    with serve([queue], endpoint.port) as again:
        assert get(f"{again.url}/livez")[0] == 200
    assert "overspill-metrics" not in {thread.name for thread in threading.enumerate()}


def test_it_listens_on_loopback_unless_told_otherwise(endpoint: Endpoint) -> None:
    assert endpoint._server.socket.getsockname()[0] == "127.0.0.1"


# --- folders


def test_a_folder_is_measured_beside_its_owner_and_changed_in_nothing(queue: HybridQueue, tmp_path: Path) -> None:
    for i in range(5):
        queue.enqueue(i)
    queue.dequeue()
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "jobs").iterdir()}
    registry = CollectorRegistry()
    folders = Folders([tmp_path])
    registry.register(folders)
    with Endpoint(registry, folders.health, "127.0.0.1", 0) as endpoint:
        told = values(get(f"{endpoint.url}/metrics")[1])
        assert told["items_waiting", "jobs"] == 4 and told["segments", "jobs"] == 1 and told["folder_problems", "jobs"] == 0
        assert 0 <= told["oldest_age_seconds", "jobs"] < 3600
        assert {name for name, _ in told}.isdisjoint({"memory_items", "items_enqueued_total", "pressure_ratio"}), "only an owner knows"
        assert get(f"{endpoint.url}/healthz")[0] == 200
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "jobs").iterdir()} == before


def test_folders_of_one_name_are_told_apart_and_a_damaged_one_is_ill(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        with HybridQueue("jobs", tmp_path / parent, durability=Durability.PROCESS) as q:
            q.enqueue_batch(["x" * 100] * 50)
    (segment,) = (tmp_path / "b" / "jobs").glob("*.seg")
    segment.write_bytes(b"\xff" * 64 + segment.read_bytes()[64:])
    folders = Folders([tmp_path / "a", tmp_path / "b"])
    health = folders.health()
    assert [(each.queue, bool(each.why)) for each in health.queues] == [(str(tmp_path / "a" / "jobs"), False), (str(tmp_path / "b" / "jobs"), True)]
    assert health.is_alive and not health.is_well


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="absent"):
        Folders([tmp_path / "absent"])


def test_one_look_serves_all_who_ask_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import overspill.metrics.folder as module

    with HybridQueue("jobs", tmp_path):
        pass
    looks: list[Any] = []
    monkeypatch.setattr(module, "inspect", lambda path: looks.append(path) or Path)
    monkeypatch.setattr(module.time, "monotonic", lambda: 5.0)
    folders = Folders([tmp_path])
    folders._look()
    folders._look()
    assert len(looks) == 1


def test_look_at_a_large_folder_reads_no_records_of_sealed_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape of ten million items must not read a GiB: headers, marks, footers and at the most the lists of offsets."""
    with HybridQueue("large", tmp_path, max_disk_size=16 * MiB, memory_size=10) as queue:
        for n in range(60):
            queue.enqueue_batch([b"x" * 500] * 300, priority=(64, 128, 192)[n % 3])
        for _ in range(4):
            queue.dequeue_batch(1000)
    segments = list((tmp_path / "large").glob("*.seg"))
    read = mapped = 0
    reading, mapping = Reader.read, Reader.map_of

    def counted(self: Reader, offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return reading(self, offset, length)

    def mapping_counted(self: Reader, start: int, end: int) -> Any:
        nonlocal mapped
        mapped += end - start
        return mapping(self, start, end)

    monkeypatch.setattr(Reader, "read", counted)
    monkeypatch.setattr(Reader, "map_of", mapping_counted)
    families = {family.name: family for family in Folders([tmp_path / "large"]).collect()}
    assert families["overspill_items_waiting"].samples[0].value == 14_000
    assert len(segments) > 3 and mapped == 0 and read < sum(segment.stat().st_size for segment in segments) // 20, (len(segments), read, mapped)
