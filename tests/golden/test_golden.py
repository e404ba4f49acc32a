"""What version 1 of the format has written is read by every later version, item by item."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import oracle
import pytest
from faults import lay_out

from overspill import HybridQueue
from overspill._runtime.clock import ManualClock
from overspill._store.inspection import items as stored_items
from overspill.serializers import resolve

HERE = Path(__file__).resolve().parent
FILES = sorted(HERE.glob("v*.json"))


def _directories() -> Any:
    spec = importlib.util.spec_from_file_location("golden_directories", HERE / "directories.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


directories = _directories()


def test_no_golden_directory_is_missing() -> None:
    assert {file.stem for file in FILES} >= {f"v1_{name}" for name in directories.MAKERS}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    kept = json.loads(request.param.read_text())
    lay_out(directories.unpacked(kept["files"]), tmp_path / "q")
    return kept, tmp_path


def test_the_oracle_reads_it(golden: tuple[dict[str, Any], Path]) -> None:
    kept, path = golden
    assert directories.told(oracle.read_folder(path / "q")) == {name: line for name, line in kept.items() if name not in ("version", "files")}


def test_it_is_looked_at_without_being_opened(golden: tuple[dict[str, Any], Path]) -> None:
    kept, path = golden
    before = {file.name: file.read_bytes() for file in (path / "q").iterdir() if file.is_file()}
    seen = [[item.kind, item.priority, min(item.attempts, 255), item.expiry_ns, item.id.hex()] for item in stored_items(path / "q", on_problem=lambda _: None)]
    assert seen == [expected[1:] for expected in kept["items"]]
    everything = list(stored_items(path / "q", on_problem=lambda _: None, delayed=True, dead_letters=True))[len(seen) :]
    apart = [(item.id.hex(), item.due_ns or (item.death and item.death.dead_ns)) for item in everything]
    assert apart == [(expected[5], expected[6]) for expected in [*kept.get("delayed", []), *kept.get("dead_letters", [])]]
    assert {file.name: file.read_bytes() for file in (path / "q").iterdir() if file.is_file()} == before


@pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])
def test_a_queue_opens_it_and_gives_every_item(golden: tuple[dict[str, Any], Path], plain: bool) -> None:
    kept, path = golden
    codec = resolve("auto")
    expected = [codec.decode(item[1], bytes.fromhex(item[0])) for item in kept["items"]]
    with HybridQueue("q", path, _plain=plain, _background=False, _clock=ManualClock(directories.WALL_NS)) as q:
        assert list(q) == expected
        assert q.stats().balance == 0
        assert q.stats().delayed == len(kept.get("delayed", []))
        letters = [[letter.id.bytes.hex(), letter.attempts, round(letter.dead_at)] for letter in q.dead_letters]
        assert letters == [[each[5], each[3], round(each[6] / 1e9)] for each in kept.get("dead_letters", [])]
        for item, (_, _, priority, attempts, _, identity) in zip(expected, kept["items"], strict=True):
            with q.lease(0) as delivery:
                assert (delivery.item, type(delivery.item), delivery.priority, delivery.id.bytes.hex()) == (item, type(item), priority, identity)
                assert delivery.attempts == attempts + 1
        assert len(q) == 0 and q.stats().balance == 0
