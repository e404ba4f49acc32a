"""A queue may be described by a mapping, a TOML file or a JSON file instead of arguments."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overspill import HybridQueue, InvalidOption, QueueFull, RateLimited

TOML = """
name = "segments"
disk_path = "{}"
memory_size = 2
memory_limit = "512MiB"
overflow_strategy = "by_priority"
max_disk_size = "1GiB"
when_full = "raise"
durability = "power"
sync_interval = "none"
ttl = "1h"
compression = "zstd"
lease_timeout = 5

[rate_limit]
rate = 1
burst = 3
"""


def test_a_toml_file_describes_a_queue(tmp_path: Path) -> None:
    path = tmp_path / "queue.toml"
    path.write_text(TOML.format(tmp_path))
    with HybridQueue.from_config(path) as q:
        for item in ("a", "b", "c"):
            q.enqueue(item)
        assert (q.name, q.memory_size, q.disk_size) == ("segments", 2, 1)
        assert q.stats().syncs >= 3
        with pytest.raises(RateLimited):
            q.enqueue("too fast")
    assert (tmp_path / "segments").is_dir()


def test_a_json_file_and_a_mapping_say_the_same(tmp_path: Path) -> None:
    words = {"name": "q", "memory_size": 1, "disk_path": None, "when_full": "raise"}
    path = tmp_path / "queue.json"
    path.write_text(json.dumps(words))
    for source in (words, path, str(path)):
        with HybridQueue.from_config(source) as q:
            q.enqueue("x")
            with pytest.raises(QueueFull):
                q.enqueue("y")


@pytest.mark.parametrize(("words", "named"), [
    ({"name": "q", "memory_siez": 5}, "memory_size"),
    ({"name": "q", "memory_size": 0}, "memory_size"),
    ({"name": "q", "durability": "eternal"}, "durability"),
    ({"name": "q", "max_disk_size": "ten gigabytes"}, "max_disk_size"),
    ({"name": "q", "rate_limit": {"rate": 1, "bust": 2}}, "burst"),
    ({"name": "../q"}, "name"),
])  # fmt: skip
def test_what_is_wrong_is_named_with_its_file_before_anything_is_created(tmp_path: Path, words: dict[str, Any], named: str) -> None:
    words |= {"disk_path": str(tmp_path / "queues")}
    path = tmp_path / "queue.json"
    path.write_text(json.dumps(words))
    with pytest.raises(InvalidOption, match=named) as caught:
        HybridQueue.from_config(path)
    assert "queue.json" in str(caught.value)
    with pytest.raises(InvalidOption, match=named):
        HybridQueue.from_config(words)
    assert not (tmp_path / "queues").exists()


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"name": "a", "name": "b"}', "\xff"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "queue.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidOption, match=r"queue\.json"):
        HybridQueue.from_config(path)
    with pytest.raises(InvalidOption, match=r"absent\.toml"):
        HybridQueue.from_config(tmp_path / "absent.toml")
