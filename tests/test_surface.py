"""The names that users rely on, and the rules of the house.

`api.md` is the contract; the tables below are its part that exists so far. A name that leaves here breaks somebody's program.
"""
from __future__ import annotations

import ast
import inspect
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

import overspill
from overspill import HybridQueue, StreamQueue

SOURCE = Path(overspill.__file__).parent

NAMES = {
    "HybridQueue", "PriorityQueue", "CircularBuffer", "Queue", "StreamQueue", "Durability", "OverflowStrategy", "WhenFull", "Priority", "RateLimit", "KiB", "MiB", "GiB", "QueueError", "QueueEmpty",
    "AsyncHybridQueue", "QueueFull", "QueueClosed", "QueueBroken", "QueueLocked", "RateLimited", "ItemRejected", "ItemTooLarge", "NotSerializable", "LeaseExpired", "CorruptedData", "UnknownFormat",
}  # fmt: skip
LATER: set[str] = set()

VERBS = {
    "enqueue": "(self, item, *, priority, ttl, delay, durability, timeout)",
    "enqueue_batch": "(self, items, *, priority, ttl, delay, durability, timeout)",
    "enqueue_front": "(self, item",
    "enqueue_with_priority": "(self, item, priority, *, ttl, delay, durability, timeout)",
    "dequeue": "(self, timeout)",
    "try_dequeue": "(self)",
    "dequeue_batch": "(self, max_items, *, timeout)",
    "peek": "(self)",
    "snapshot": "(self)",
    "batches": "(self, n, linger)",
    "lease": "(self, timeout)",
    "lease_batch": "(self, n",
    "stats": "(self)",
    "on_memory_pressure": "(self, callback, thresholds)",
    "flush_to_disk": "(self, n)",
    "flush_oldest": "(self, n)",
    "compact_memory": "(self)",
    "shrink_memory": "(self)",
    "set_memory_limit": "(self, nbytes)",
    "sync": "(self)",
    "cleanup": "(self)",
    "compact": "(self)",
    "clear": "(self)",
    "remove_where": "(self, predicate)",
    "close": "(self, drain)",
    "destroy": "(self)",
    "from_config": "(source, *, name)",
    "inspect": "(path",
}
PROPERTIES = {"size", "memory_size", "disk_size", "pressure", "recovery", "dead_letters", "aio"}
BESIDE_THE_CONTRACT = {"name", "closed"}
"""Public, and not in `api.md`: kept short on purpose."""


def test_every_name_of_the_contract_is_there_and_in_all() -> None:
    assert NAMES <= set(overspill.__all__)
    for name in overspill.__all__:
        assert getattr(overspill, name) is not None
    assert not LATER & set(overspill.__all__) - set(vars(overspill)), "a name in __all__ that does not exist"
    assert not hasattr(overspill, "NoSuchQueue")


def test_all_is_sorted_and_says_each_name_once() -> None:
    assert list(overspill.__all__) == sorted(set(overspill.__all__), key=str.casefold)


def test_a_star_import_brings_no_stranger() -> None:
    for name in set(overspill.__all__) - NAMES - LATER:
        assert name in {"AsyncDelivery", "Delivery", "InvalidOption", "QueueStats", "Queues", "Serializer", "StreamStats", "UnsafeFolder", "open_queues"}, (
            f"{name} is public by accident, or this list is to grow"
        )  # fmt: skip


@pytest.mark.parametrize(("verb", "expected"), VERBS.items())
def test_signatures_are_those_of_the_contract(verb: str, expected: str) -> None:
    signature = inspect.signature(getattr(HybridQueue, verb))
    bare = signature.replace(
        parameters=[parameter.replace(default=parameter.empty, annotation=parameter.empty) for parameter in signature.parameters.values()], return_annotation=signature.empty
    )  # fmt: skip
    assert str(bare).startswith(expected)


STREAM = {
    "__init__": "(self, stream_id, memory_size, disk_path, *, rate_limit", "enqueue": "(self, data)", "dequeue": "(self)", "dequeue_timeout": "(self, seconds)", "try_dequeue": "(self)",
    "get_depth": "(self)", "get_pressure": "(self)", "has_disk_data": "(self)", "stats": "(self)", "close": "(self, drain)",
}  # fmt: skip


def test_a_stream_has_the_names_of_the_second_document_and_few_others() -> None:
    for verb, expected in STREAM.items():
        signature = inspect.signature(getattr(StreamQueue, verb))
        bare = [parameter.replace(default=parameter.empty, annotation=parameter.empty) for parameter in signature.parameters.values()]
        assert str(signature.replace(parameters=bare, return_annotation=signature.empty)).startswith(expected)
    assert inspect.signature(StreamQueue).parameters["rate_limit"].default == overspill.RateLimit(10_000, burst=1000)
    public = {name for name in dir(StreamQueue) if not name.startswith("_")}
    assert public - set(STREAM) == {"stream_id", "recovery", "closed"}
    assert all(len(inspect.getdoc(getattr(StreamQueue, name)) or "") > 15 for name in public)


def test_defaults_are_those_of_the_contract() -> None:
    def defaults(verb: str) -> dict[str, object]:
        return {name: parameter.default for name, parameter in inspect.signature(getattr(HybridQueue, verb)).parameters.items() if parameter.default is not parameter.empty}

    put = {"priority": overspill.Priority.NORMAL, "ttl": None, "delay": None, "durability": None, "timeout": None}
    assert defaults("enqueue") == defaults("enqueue_batch") == put
    assert defaults("dequeue") == defaults("lease") == {"timeout": None}
    assert defaults("dequeue_batch")["timeout"] == 0
    assert defaults("flush_to_disk") == {"n": None}
    assert defaults("close") == {"drain": None}
    assert defaults("on_memory_pressure") == {"thresholds": (0.7, 0.9)}


@pytest.mark.parametrize("name", sorted([*VERBS, *PROPERTIES]))
def test_everything_public_says_what_it_does(name: str) -> None:
    doc = inspect.getdoc(getattr(HybridQueue, name))
    assert doc and len(doc) > 20


def test_every_public_class_says_what_it_is() -> None:
    for name in overspill.__all__:
        thing = getattr(overspill, name)
        if inspect.isclass(thing):
            assert thing.__doc__, name


def test_options_have_the_defaults_of_the_contract() -> None:
    from overspill.options import Options

    expected = {
        "memory_size": 1000, "memory_limit": 512 * 2**20, "overflow_ratio": 1.0, "overflow_strategy": overspill.OverflowStrategy.OLDEST, "max_disk_size": 10 * 2**30,
        "when_full": overspill.WhenFull.RAISE, "durability": overspill.Durability.PROCESS, "sync_interval": 1.0, "serializer": "auto", "compression": None, "ttl": None,
        "max_item_size": 64 * 2**20, "default_batch_size": 100, "rate_limit": None, "lease_timeout": 30.0, "max_attempts": None, "on_expired": None, "on_dropped": None, "metrics": False,
    }  # fmt: skip
    options = Options.build(name="q", disk_path="/nowhere")
    assert {key: getattr(options, key) for key in expected} == expected


def test_sizes_and_priorities_are_what_they_say() -> None:
    assert (overspill.KiB, overspill.MiB, overspill.GiB) == (2**10, 2**20, 2**30)
    assert (overspill.Priority.LOW, overspill.Priority.NORMAL, overspill.Priority.HIGH) == (64, 128, 192)
    assert [member.name for member in overspill.Durability] == ["MEMORY", "PROCESS", "POWER"]
    assert {member.name for member in overspill.OverflowStrategy} == {"OLDEST", "LARGEST", "BY_PRIORITY"}
    assert {member.name for member in overspill.WhenFull} == {"RAISE", "BLOCK", "DROP_OLDEST", "DROP_NEWEST"}


def test_the_family_of_errors() -> None:
    for name in NAMES:
        thing = getattr(overspill, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            assert issubclass(thing, overspill.QueueError), name
    assert issubclass(overspill.QueueEmpty, queue.Empty) and issubclass(overspill.QueueFull, queue.Full)
    assert issubclass(overspill.ItemTooLarge, overspill.ItemRejected) and issubclass(overspill.NotSerializable, overspill.ItemRejected)
    assert issubclass(overspill.NotSerializable, TypeError)


def test_nothing_else_is_public_by_accident() -> None:
    public = {name for name in dir(HybridQueue) if not name.startswith("_")}
    assert public - set(VERBS) - PROPERTIES <= BESIDE_THE_CONTRACT


def test_a_queue_refuses_attributes_that_would_break_it(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        for name in PROPERTIES:
            with pytest.raises(AttributeError):
                setattr(q, name, 5)


def test_the_face_runs_no_python_frame_on_the_hot_way() -> None:
    for verb in ("enqueue", "dequeue", "try_dequeue", "enqueue_batch", "dequeue_batch"):
        assert not inspect.isfunction(getattr(HybridQueue, verb)), f"{verb} is inherited from the compiled class"


# --- the house

MODULES = sorted(path for path in SOURCE.rglob("*.py") if "__pycache__" not in path.parts)

LAYERS = ["_core", "_engine", "_store", "_runtime"]
"""Lower first. `errors`, `item`, `options`, … are leaves, `hybrid` and `__init__` faces."""

LEAVES = {"errors", "item", "options", "serializers", "codecs", "stats", "config"}
MAY_IMPORT = {
    "_core": {"_core"},
    "_engine": {"_engine", "_core"} | LEAVES,
    "_store": {"_store", "_core"} | LEAVES,
    "_runtime": {"_runtime", "_engine", "_store", "_core"} | LEAVES,
    "metrics": {"metrics", "_store", "salvage"} | LEAVES,
    "opening": {"_runtime", "metrics"} | LEAVES,
}


def parts_imported(path: Path) -> set[str]:
    """The parts of the package that a module imports, wherever in the module."""
    package = ("overspill", *path.relative_to(SOURCE).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("overspill.")}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = (*base, *(node.module.split(".") if node.module else ()))
            if name[:1] == ("overspill",):
                found |= {name[1]} if len(name) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if part in LEAVES:
        assert parts_imported(path) <= LEAVES
    elif part in MAY_IMPORT:
        assert parts_imported(path) <= MAY_IMPORT[part]
    elif part == "hybrid":
        assert parts_imported(path) <= {"_runtime", "_store", "_engine", "opening", "aio"} | LEAVES


def test_leaves_do_not_form_a_circle() -> None:
    above = {name: set().union(*(parts_imported(path) for path in MODULES if path.relative_to(SOURCE).parts[0].removesuffix(".py") == name)) & LEAVES - {name} for name in LEAVES}
    while above:
        free = {name for name, needs in above.items() if not needs & set(above)}
        assert free, f"imports go round in a circle: {above}"
        above = {name: needs for name, needs in above.items() if name not in free}


def test_engine_and_store_do_not_know_each_other() -> None:
    for path in MODULES:
        part = path.relative_to(SOURCE).parts[0]
        if part == "_engine":
            assert "_store" not in parts_imported(path)
        if part == "_store":
            assert "_engine" not in parts_imported(path)


def test_the_compiled_core_imports_nothing_from_the_rest() -> None:
    for path in (SOURCE / "_core").glob("*.pyx"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"], ["cimport"]) and ("import" in words or "cimport" in words):
                assert not words[1].startswith(("..", "overspill.")) or words[1].startswith("overspill._core"), f"{path.name}: {line}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_names_say_what_a_module_is_for(path: Path) -> None:
    words = str(path.relative_to(SOURCE)).lower()
    for word in ("util", "helper", "manager", "common", "misc"):
        assert word not in words
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the head of a module tells its story"
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            assert not node.name.lower().endswith(("manager", "helper", "utils")), node.name


DOORS = {
    "open", "write", "pwrite", "pwritev", "writev", "fsync", "fdatasync", "rename", "replace", "renames", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs", "truncate", "ftruncate",
    "link", "symlink", "posix_fallocate", "chmod", "fchmod", "chown", "mkfifo", "sendfile", "copy_file_range",
}  # fmt: skip
PATH_DOORS = {"write_text", "write_bytes", "read_text", "read_bytes", "touch", "symlink_to", "hardlink_to"}
THE_DOOR = Path("_store/files.py")
EXEMPT = {Path("config.py"): {"read_bytes"}}
"""`config.load_config` reads a configuration file, which is no part of a queue."""


def store_modules() -> list[Path]:
    """What makes up the queue: command line and demo are programs of their own."""
    return [path for path in MODULES if path.relative_to(SOURCE).parts[0] not in ("cli", "demo", "pipe", "web", "remote", "metrics")]


@pytest.mark.parametrize("path", store_modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_there_is_one_door_to_the_disk(path: Path) -> None:
    where = path.relative_to(SOURCE)
    if where == THE_DOOR:
        pytest.skip("this is the door")
    allowed = EXEMPT.get(where, set())
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            assert called.id != "open", f"{where}:{node.lineno} opens a file"
        elif isinstance(called, ast.Attribute):
            if isinstance(called.value, ast.Name) and called.value.id in ("os", "shutil", "tempfile", "io"):
                assert called.value.id == "os" and called.attr not in DOORS, f"{where}:{node.lineno} calls {called.value.id}.{called.attr}"
            assert called.attr not in PATH_DOORS - allowed, f"{where}:{node.lineno} calls .{called.attr}"


TESTS = Path(__file__).parent
MAY_PAUSE = {Path("costs/system_calls.py"): "a tracer, which nobody tells that a thread has fallen asleep"}
"""All others say `patience.until`."""
A_BOUND_S = 10
"""Whoever waits for so long at least, waits for what ends the wait. A shorter time is a guess at how long something takes."""


def pauses(code: str) -> Iterator[int]:
    """The lines on which a program waits for a time rather than for something, or judges by the time that it was given."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = [value.value for value in (*node.args, *(keyword.value for keyword in node.keywords)) if isinstance(value, ast.Constant)]
            a_turn = ast.unparse(node.func) == "asyncio.sleep" and given == [0]
            if (node.func.attr == "sleep" and not a_turn) or (node.func.attr == "wait" and any(type(value) in (int, float) and value < A_BOUND_S for value in given)):
                yield node.lineno
        names = [node.attr] if isinstance(node, ast.Attribute) else [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        if {"process_time", "process_time_ns"} & set(names) or (isinstance(node, ast.ImportFrom) and "sleep" in names):
            yield node.lineno


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_of_ours_sleeps(path: Path) -> None:
    found = list(pauses(path.read_text()))
    assert bool(found) == (path.relative_to(TESTS) in MAY_PAUSE), found


def test_a_test_that_sleeps_would_be_seen() -> None:
    for line in ("time.sleep(1)", "await asyncio.sleep(0.1)", "event.wait(0.02)", "event.wait(timeout=1)", "time.process_time()", "from time import sleep"):
        assert list(pauses(line)) == [1], line
    for line in ("await asyncio.sleep(0)", "assert event.wait(30)", "event.wait()", "event.wait(PATIENCE_S)", "waiter.wait(None)"):
        assert list(pauses(line)) == [], line
