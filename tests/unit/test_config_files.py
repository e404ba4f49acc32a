"""Configuration files with several queues: what holds for whom, and everything that can be wrong, each with its line."""

import json

import pytest

from overspill import Durability, HybridQueue, InvalidOption, KiB, MiB, QueueFull, QueueLocked, RateLimit, open_queues
from overspill.config import _lines_of_json, _lines_of_toml, load_config, load_queues, problems_in

TOML = """
[defaults]                      # for every queue below
disk_path = "{folder}"
durability = "power"
memory_limit = "64MiB"

[queues.jobs]
lease_timeout = "1.5h"

[queues.audit]
durability = "memory"
[queues.audit.rate_limit]
rate = 100
burst = 10

[queues.scratch]
disk_path = "none"
durability = "memory"
"""


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "queues.toml"
    file.write_text(TOML.format(folder=tmp_path / "queues"))
    return file


def test_what_is_said_for_all_holds_unless_a_queue_says_otherwise(file, tmp_path):
    queues = load_queues(file)
    folder = str(tmp_path / "queues")
    assert queues == {
        "jobs": {"name": "jobs", "disk_path": folder, "durability": Durability.POWER, "memory_limit": 64 * MiB, "lease_timeout": 5400.0},
        "audit": {"name": "audit", "disk_path": folder, "durability": Durability.MEMORY, "memory_limit": 64 * MiB, "rate_limit": RateLimit(100, burst=10)},
        "scratch": {"name": "scratch", "disk_path": None, "durability": Durability.MEMORY, "memory_limit": 64 * MiB},
    }
    assert problems_in(file) == []


def test_one_queue_of_several_is_asked_for_by_name(file):
    with HybridQueue.from_config(file, name="scratch") as q:
        assert q.name == "scratch"
    with pytest.raises(InvalidOption, match="name=None: must be 'jobs' or 'audit' or 'scratch'"):
        HybridQueue.from_config(file)
    with pytest.raises(InvalidOption, match="did you mean 'audit'"):
        HybridQueue.from_config(file, name="adit")


def test_a_name_may_be_given_to_the_one_queue_of_a_file(tmp_path):
    assert load_config({"memory_size": 5}, "jobs") == {"memory_size": 5, "name": "jobs"}
    assert load_config({"name": "jobs"}, "jobs") == {"name": "jobs"}
    with pytest.raises(InvalidOption, match="'jobs', which is the one queue"):
        load_config({"name": "jobs"}, "other")


def test_all_queues_of_a_file_are_opened_together_and_closed_together(file, tmp_path):
    with open_queues(file) as queues:
        assert list(queues) == ["jobs", "audit", "scratch"] and len(queues) == 3
        queues["jobs"].enqueue("x")
        assert (tmp_path / "queues" / "jobs").is_dir()
    assert all(queue.closed for queue in queues.values())
    with open_queues(file) as queues:
        assert queues["jobs"].dequeue() == "x"


def test_if_one_cannot_be_opened_none_is_left_open(file, tmp_path):
    with HybridQueue("audit", tmp_path / "queues"):
        with pytest.raises(QueueLocked):
            open_queues(file)
        HybridQueue("jobs", tmp_path / "queues").close()


def test_one_that_cannot_be_closed_keeps_no_other_open(tmp_path, monkeypatch):
    queues = open_queues({"queues": {"a": {}, "b": {}, "c": {}}})
    monkeypatch.setattr(queues["b"], "close", lambda drain: (_ for _ in ()).throw(QueueFull("no room")), raising=False)
    with pytest.raises(QueueFull):
        queues.close()
    assert queues["a"].closed and queues["c"].closed


def test_a_file_of_one_queue_may_be_opened_the_same_way(tmp_path):
    with open_queues({"name": "jobs"}) as queues:
        assert list(queues) == ["jobs"]
    with pytest.raises(InvalidOption, match="name=None"):
        open_queues({"memory_size": 5})


# --- what is wrong

EVERYTHING = """\
typo = 1
[defauts]
ttl = 5
[defaults]
name = "shared"
disk_path = 7
[queues.jobs]
memroy_size = 5
memory_size = 0
overflow_ratio = 1.5
ttl = "soon"
[queues."../etc"]
[queues.audit]
name = "other"
disk_path = "/q"
max_disk_size = "256KiB"
max_item_size = "1MiB"
rate_limit = { rate = 0 }
[queues.scratch]
disk_path = "none"
durability = "power"
overflow_ratio = 0.5
"""
FOUND = [
    (1, "typo", "left out beside"),
    (2, "defauts", "did you mean 'defaults'"),
    (5, "defaults.name", "left out: a queue has the name of its section"),
    (6, "defaults.disk_path", "a path"),
    (8, "queues.jobs.memroy_size", "did you mean 'memory_size'"),
    (9, "queues.jobs.memory_size", "an int from 1 to"),
    (10, "queues.jobs.overflow_ratio", "above 0, up to 1"),
    (11, "queues.jobs.ttl", '"5m"'),
    (12, "queues.../etc", "begin with a letter or a digit"),
    (14, "queues.audit.name", "left out"),
    (17, "queues.audit.max_item_size", "max_disk_size"),
    (18, "queues.audit.rate_limit.rate", "above 0"),
    (21, "queues.scratch.durability", "in memory only"),
    (22, "queues.scratch.overflow_ratio", "nowhere to spill to"),
]


def test_everything_is_found_at_once_in_the_order_of_the_file(tmp_path):
    file = tmp_path / "q.toml"
    file.write_text(EVERYTHING)
    problems = problems_in(file)
    assert [(problem.line, problem.key) for problem in problems] == [(line, key) for line, key, _ in FOUND]
    for problem, (_, _, said) in zip(problems, FOUND):
        assert said in str(problem.error)


def test_the_first_is_raised_with_file_and_line_and_says_how_many_there_are(tmp_path):
    file = tmp_path / "q.toml"
    file.write_text(EVERYTHING)
    with pytest.raises(InvalidOption) as caught:
        load_queues(file)
    assert str(caught.value).startswith(f"{file}, line 1: typo=1")
    assert caught.value.__notes__ == [f"and {len(FOUND) - 1} more, all of which `overspill config check` lists"]


def test_a_misspelt_section_is_recognised(tmp_path):
    (problem,) = problems_in({"queue": {"jobs": {}}})
    assert "did you mean 'queues'" in str(problem.error)
    (problem,) = problems_in({"queues": {"jobs": 5}})
    assert problem.key == "queues.jobs" and "a section" in str(problem.error)


def test_a_wrong_value_does_not_make_others_look_wrong():
    (problem,) = problems_in({"name": "../q", "disk_path": "/q", "durability": "power"})
    assert problem.key == "name"
    (problem,) = problems_in({"name": "q", "disk_path": 5, "durability": "power"})
    assert problem.key == "disk_path"


def test_json_has_lines_as_well(tmp_path):
    file = tmp_path / "q.json"
    file.write_text(json.dumps({"queues": {"a{": {"ttl": "a: \"b\"", "memory_size": 0}}, "defaults": {"rate_limit": {"rate": 0}}}, indent=1))
    assert [(problem.line, problem.key) for problem in problems_in(file)] == [
        (3, "queues.a{"), (10, "defaults.rate_limit.rate"),
    ]  # fmt: skip


def test_lines_of_keys_are_found_wherever_toml_allows_a_key():
    text = '''\
a = 1
'b c' = """
d = 2
"""
[ e . "f.g" ]  # [h]
i.j = "k = 3"
# l = 4
m = [
  1, 2,
]
n = \'\'\'x\'\'\'
'''
    assert dict(_lines_of_toml(text)) == {("a",): 1, ("b c",): 2, ("e", "f.g"): 5, ("e", "f.g", "i", "j"): 6, ("e", "f.g", "m"): 8, ("e", "f.g", "n"): 11}


def test_lines_of_keys_are_found_in_json():
    text = '{"a": [{"b": 1},\n {"b\\"": "c: {"}],\n "d": {"e": []}, "f":\n 5}'
    assert dict(_lines_of_json(text)) == {("a",): 1, ("a", "b"): 1, ("a", 'b"'): 2, ("d",): 3, ("d", "e"): 3, ("f",): 3}


# --- thresholds that contradict each other


def test_a_share_of_memory_to_spill_at_needs_somewhere_to_spill_to():
    with pytest.raises(InvalidOption, match="nowhere to spill to"):
        HybridQueue(memory_size=100, overflow_ratio=0.5)


def test_a_pressure_threshold_that_spilling_keeps_out_of_reach_is_refused(tmp_path):
    with HybridQueue("q", tmp_path, overflow_ratio=0.8, max_disk_size=512 * KiB) as q:
        with pytest.raises(InvalidOption, match="at most overflow_ratio=0.8"):
            q.on_memory_pressure(print, (0.5, 0.9))
        q.on_memory_pressure(print, (0.5, 0.8))


def test_thresholds_that_nobody_chose_give_way_to_the_overflow_ratio(tmp_path):
    told = []
    with HybridQueue("q", tmp_path, memory_size=10, overflow_ratio=0.5, max_disk_size=512 * KiB) as q:
        q.on_memory_pressure(told.append)
        for n in range(8):
            q.enqueue(n)
    assert told == [0.5]
