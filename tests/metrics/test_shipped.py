"""The alert rules and the board that come with the package, in the hands of a real Prometheus that scrapes real queues in trouble.

Prometheus is no Python package: `make test` brings it (see the Makefile). Where it cannot be had, the tests that need it are skipped and say so.
"""
from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from patience import until
import pytest
import yaml
from prometheus_client import CollectorRegistry

from overspill import Durability, HybridQueue, KiB, QueueBroken, QueueFull, WhenFull
from overspill._runtime.clock import ManualClock
from overspill._store.files import Disk
from overspill.metrics import board, register, rules, serve
from overspill.metrics.catalogue import METRICS, Kind
from overspill.metrics.endpoint import Endpoint
from overspill.metrics.folder import FOLDER_METRICS, Folders

UNIT_TESTS = Path(__file__).with_name("alerts_test.yml")
ALERTS = [rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]]
BOARD = json.loads(board())


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here: `make test` fetches it where apt-get can (Debian's package prometheus)")
    return found


def promtool(*arguments: str | Path) -> str:
    run = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_rules_are_raised_and_not_raised_as_their_unit_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)


def test_every_alert_is_raised_by_a_unit_test_and_says_what_to_do() -> None:
    tested = UNIT_TESTS.read_text(encoding="utf-8")
    for alert in ALERTS:
        assert re.search(rf'alertname(=|: )"?{alert["alert"]}\b', tested), alert["alert"]
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"] and alert["annotations"]["description"]


# --- the board, as Grafana will read it


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions_of_the_board() -> list[str]:
    annotations = [each["expr"] for each in BOARD["annotations"]["list"]]
    return [target["expr"] for panel in panels() for target in panel["targets"]] + annotations


def test_panels_have_a_unit_a_meaning_and_a_place_of_their_own() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"]))
    assert max(taken.values()) == 1, "panels overlap"
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["description"], panel["title"]


def test_the_board_asks_for_the_chosen_queues_and_the_chosen_data_source_only() -> None:
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {"datasource", "queue", "instance"}
    for expression in expressions_of_the_board():
        selectors = re.findall(r"overspill_\w+(\{[^}]*\})?", expression)
        assert selectors and all('queue=~"$queue"' in selector for selector in selectors), expression
    assert {source["uid"] for source in every(BOARD, "datasource")} == {"${datasource}"}


def every(thing: Any, key: str) -> Iterator[Any]:
    if isinstance(thing, dict):
        if key in thing and isinstance(thing[key], dict):
            yield thing[key]
        for value in thing.values():
            yield from every(value, key)
    elif isinstance(thing, list):
        for value in thing:
            yield from every(value, key)


SERIES = {metric.shown for metric in METRICS if metric.kind is not Kind.HISTOGRAM} | {metric.name for metric in FOLDER_METRICS} | {
    f"{metric.name}_{part}" for metric in METRICS if metric.kind is Kind.HISTOGRAM for part in ("bucket", "sum", "count")
}  # fmt: skip


def named(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"overspill_\w+", expression)}


def test_alerts_and_board_name_metrics_that_exist_and_the_board_leaves_out_few() -> None:
    on_board = named(expressions_of_the_board())
    assert on_board | named([alert["expr"] for alert in ALERTS]) <= SERIES
    assert {metric.shown for metric in METRICS if metric.kind is not Kind.HISTOGRAM} - on_board == {
        "overspill_items_quarantined_total", "overspill_recovery_quarantined_bytes",
    }  # fmt: skip


# --- against a real server


class Prometheus:
    """A server on the loopback interface, with its data in a folder of the test."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        (folder / "alerts.yml").write_text(rules())
        config = folder / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "200ms"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "overspill", "static_configs": [{"targets": targets}]}],
        }))  # fmt: skip
        promtool("check", "config", config)
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.address}"], stdout=log, stderr=log,
            )  # fmt: skip

    def ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def finds(self, expression: str) -> bool:
        return bool(self.ask("/api/v1/query", query=expression)["result"])

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError), urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=10) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class BadDisk(Disk):
    fails = False

    def datasync(self, fd: int) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        super().datasync(fd)


class Trouble:
    """Queues with everything the matter that an alert looks for, and more of it with every tick."""

    def __init__(self, folder: Path, open_: ExitStack) -> None:
        self.folder = folder
        self.registry = CollectorRegistry()
        self.clock = ManualClock()
        self.open_ = open_
        self.growing = self.queue("growing", max_disk_size=1024 * KiB, memory_size=10, _clock=self.clock)
        self.ring = self.queue("ring", None, memory_size=2, when_full=WhenFull.DROP_OLDEST)
        self.failing = self.queue("failing", max_attempts=1)
        broken = self.queue("broken", _disk_class=BadDisk)
        broken.enqueue("x")
        broken._disk.fails = True  # type: ignore[union-attr]
        with pytest.raises(QueueBroken):
            broken.sync()
        self.mute = Mute()
        register(self.mute, self.registry)
        self.reopened = self.queue("reopened")
        self.failing.enqueue_batch(list(range(1000)))
        self.queues = [self.growing, self.ring, self.failing, broken, self.reopened]

    def queue(self, name: str, under: str | None = "queues", **options: Any) -> HybridQueue:
        queue = HybridQueue(name, self.folder / under if under else None, _background=False, **options)
        self.open_.callback(queue.close)
        register(queue, self.registry)
        return queue

    def tick(self) -> None:
        with suppress(QueueFull):
            self.growing.enqueue(bytes(16 * KiB))
        self.clock.jump(100)
        self.ring.enqueue("x")
        self.failing.lease().nack()
        self.failing._sync_times.took(0.9)
        self.reopened.close()
        self.reopened = self.queue("reopened")


class Mute:
    name = "mute"

    def stats(self) -> Any:
        raise OSError(5, "Input/output error")


@contextmanager
def damaged_folder(folder: Path) -> Iterator[Endpoint]:
    """An endpoint beside a folder whose queue nobody has open, and in which a record does not check."""
    with HybridQueue("damaged", folder, durability=Durability.PROCESS) as queue:
        queue.enqueue_batch(["x" * 100] * 50)
    (segment,) = (folder / "damaged").glob("*.seg")
    segment.write_bytes(b"\xff" * 64 + segment.read_bytes()[64:])
    folders = Folders([folder / "damaged"])
    registry = CollectorRegistry()
    registry.register(folders)
    with Endpoint(registry, folders.health, "127.0.0.1", 0) as endpoint:
        yield endpoint


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_alert_is_raised_by_queues_in_trouble_and_every_panel_of_the_board_shows_data(tmp_path: Path) -> None:
    program("prometheus")
    with ExitStack() as open_:
        trouble = Trouble(tmp_path, open_)
        endpoint = open_.enter_context(serve([], port=0, registry=trouble.registry))
        beside = open_.enter_context(damaged_folder(tmp_path / "beside"))
        server = Prometheus(tmp_path, [f"127.0.0.1:{endpoint.port}", f"127.0.0.1:{beside.port}"])
        open_.callback(server.stop)
        until(server.is_ready, why=server.log.read_text, every_s=0.1)

        asked = {expression: re.sub(r"\$(queue|instance)", ".*", expression).replace("$__rate_interval", "5m") for expression in expressions_of_the_board()}
        asked |= {alert["expr"]: alert["expr"] for alert in ALERTS}

        def all_found() -> bool:
            trouble.tick()
            for expression in [known for known, query in asked.items() if server.finds(query)]:
                del asked[expression]
            return not asked

        until(all_found, why=lambda: f"no data: {sorted(asked)}", every_s=0.1)
        told = [rule for group in server.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
        assert {rule["name"]: rule.get("lastError") for rule in told} == {alert["alert"]: None for alert in ALERTS}
