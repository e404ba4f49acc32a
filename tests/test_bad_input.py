"""Each wrong thing gets its own clear error at the earliest moment, and nothing on disk changes."""
from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import crc32c
import pytest

from overspill import (
    Durability, HybridQueue, InvalidOption, ItemTooLarge, NotSerializable, OverflowStrategy, QueueClosed, QueueError, QueueLocked, RateLimit, UnknownFormat, UnsafeFolder, WhenFull,
)  # fmt: skip

PARENT_ONLY = "belongs to process"


def fingerprint(path: Path) -> str:
    """Of every name, mode and byte under `path`; the line in `lock` says who looked last and is no part of a queue."""
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        digest.update(f"{each.relative_to(path)} {each.lstat().st_mode:o}\n".encode())
        if each.is_file() and not each.is_symlink() and each.name != "lock":
            digest.update(each.read_bytes())
    return digest.hexdigest()


@contextmanager
def nothing_changes(path: Path) -> Iterator[None]:
    before = fingerprint(path)
    yield
    assert fingerprint(path) == before, "something on disk changed"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a healthy queue `q` of three items in it."""
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch(["a", "b", "c"])
    return tmp_path


def in_a_fork(function: Callable[[], str]) -> str:
    """What `function` says in a forked child, which ends without cleaning up after itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            said = function()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:60_000])
        os.close(writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


# --- names and options


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../q", "/etc", "a\\b", "a\0b", ".hidden", "-dash", "q ", "q\n", "a..b", "end.", "NUL", "com1.txt", "x" * 129, "ünï", b"q", 5, None])
def test_a_name_that_is_no_plain_folder_name_is_refused(home: Path, name: Any) -> None:
    with nothing_changes(home), pytest.raises(InvalidOption, match="name"):
        HybridQueue(name, home)


@pytest.mark.parametrize("name", ["q2", "stream-01.hls_720p", "A", "x" * 128])
def test_a_plain_name_is_taken(tmp_path: Path, name: str) -> None:
    with HybridQueue(name, tmp_path) as q:
        q.enqueue("x")
    assert (tmp_path / name).is_dir()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("option", "values"), [
    ("memory_size", [0, -1, 1.5, "many", True, None, 2**70]),
    ("memory_limit", [0, -1, 1.5, "512MiB", True]),
    ("overflow_ratio", [0, -0.5, 1.01, NAN, "half", True, None]),
    ("overflow_strategy", ["oldest", 0, None, WhenFull.RAISE]),
    ("max_disk_size", [0, -1, 1000, 1.5, None, "1GiB"]),
    ("when_full", ["raise", None, OverflowStrategy.OLDEST]),
    ("durability", ["power", 2, None, True]),
    ("sync_interval", [0, -1, NAN, INF, "1s"]),
    ("serializer", ["yaml", "", 5, None, object()]),
    ("compression", ["gzip", "", 3, True]),
    ("ttl", [0, -1, NAN, INF, "1h"]),
    ("max_item_size", [0, -1, 1.5, None, 2**40]),
    ("default_batch_size", [0, -1, 1.5, None, True]),
    ("rate_limit", [5, "fast", {"rate": 5}]),
    ("lease_timeout", [0, -1, NAN, None, "30s"]),
    ("max_attempts", [0, -1, 256, 1.5, True]),
    ("on_expired", [5, "print"]),
    ("on_dropped", [5, "print"]),
    ("metrics", [1, "yes", None]),
])  # fmt: skip
def test_an_option_out_of_range_is_named_with_what_it_may_be(home: Path, option: str, values: list[Any]) -> None:
    for value in values:
        with nothing_changes(home), pytest.raises(InvalidOption, match=option) as caught:
            HybridQueue("q", home, **{option: value})
        assert caught.value.option.split(".")[0] == option
        assert caught.value.allowed
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("rate", [{"rate": 0}, {"rate": -5}, {"rate": NAN}, {"rate": "fast"}, {"rate": 5, "burst": 0}, {"rate": 5, "burst": 1.5}, {"rate": 5, "on_limit": "drop"}])
def test_a_rate_limit_out_of_range_is_refused(rate: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="rate_limit"):
        RateLimit(**rate)


@pytest.mark.parametrize(("together", "named"), [
    ({"max_item_size": 200 * 1024, "max_disk_size": 256 * 1024}, "max_item_size"),
    ({"name": None}, "name"),
])  # fmt: skip
def test_options_that_contradict_each_other_are_refused(home: Path, together: dict[str, Any], named: str) -> None:
    with nothing_changes(home), pytest.raises(InvalidOption, match=named):
        HybridQueue(**({"name": "q", "disk_path": home} | together))


def test_what_needs_a_disk_is_refused_without_one() -> None:
    with pytest.raises(InvalidOption, match="disk_path"):
        HybridQueue("q", durability=Durability.POWER)
    with pytest.raises(InvalidOption, match="memory_limit"):
        HybridQueue("q", max_item_size=2000, memory_limit=1000)


@pytest.mark.parametrize("thresholds", [(), (0,), (-0.1, 0.5), (0.9, 0.7), (0.5, 0.5), (1.1,), (NAN,), ("high",), 0.7, "0.7", None])
def test_contradictory_pressure_thresholds_are_refused(home: Path, thresholds: Any) -> None:
    with HybridQueue("q", home) as q:
        with pytest.raises(InvalidOption, match="thresholds"):
            q.on_memory_pressure(print, thresholds=thresholds)
        with pytest.raises(InvalidOption, match="callback"):
            q.on_memory_pressure("no callback")


def test_an_option_that_does_not_exist_is_a_type_error_that_names_its_neighbour(home: Path) -> None:
    with nothing_changes(home), pytest.raises(TypeError, match="memory_size"):
        HybridQueue("q", home, memory_siez=5)
    with nothing_changes(home), pytest.raises(TypeError):
        HybridQueue("q", home, 1000)  # options are keyword-only


def test_an_unknown_key_in_a_configuration_is_an_error(home: Path) -> None:
    path = home / "queue.json"
    path.write_text(json.dumps({"name": "q", "disk_path": str(home), "durabillity": "power"}))
    with nothing_changes(home), pytest.raises(InvalidOption, match="durability"):
        HybridQueue.from_config(path)


@pytest.mark.parametrize("path", [5, "", b"bytes", "with\0nul", ["list"]])
def test_a_disk_path_that_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidOption, match="disk_path"):
        HybridQueue("q", path)


# --- folders


def test_a_disk_path_that_is_a_file_is_refused(home: Path) -> None:
    (home / "file").write_text("not a folder")
    with nothing_changes(home), pytest.raises((QueueError, NotADirectoryError), match="file"):
        HybridQueue("q", home / "file")
    with nothing_changes(home), pytest.raises((QueueError, NotADirectoryError, FileExistsError), match="file"):
        HybridQueue("file", home)


def as_nobody(function: Callable[[], object]) -> str:
    """What goes wrong when a user who owns nothing does this."""
    if os.getuid() != 0:
        pytest.skip("only root may become somebody else")

    def child() -> str:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        function()
        return "nothing went wrong"

    return in_a_fork(child)


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's own may not."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="overspill-public-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_a_disk_path_that_is_not_writable_is_refused(public_path: Path) -> None:
    with nothing_changes(public_path):
        said = as_nobody(lambda: HybridQueue("q", public_path))
    assert said.startswith(("PermissionError", "UnsafeFolder")) and str(public_path) in said


def test_another_users_queue_is_refused(public_path: Path) -> None:
    with HybridQueue("q", public_path) as q:
        q.enqueue("private")
    assert (public_path / "q").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (public_path / "q").iterdir())
    with nothing_changes(public_path):
        said = as_nobody(lambda: HybridQueue("q", public_path))
    assert said.startswith(("PermissionError", "UnsafeFolder")), said
    # The other way round: a folder of somebody else's is refused even by one who may do everything.
    os.chown(public_path / "q", 65534, 65534)
    with nothing_changes(public_path), pytest.raises(UnsafeFolder):
        HybridQueue("q", public_path)


def test_a_folder_that_anybody_may_write_to_is_refused(home: Path) -> None:
    (home / "q").chmod(0o777)
    with nothing_changes(home), pytest.raises(UnsafeFolder, match="q"):
        HybridQueue("q", home)
    (home / "q").chmod(0o700)
    with HybridQueue("q", home) as q:
        assert list(q) == ["a", "b", "c"]


def test_a_link_in_place_of_the_folder_is_refused(home: Path) -> None:
    (home / "link").symlink_to(home / "q")
    with nothing_changes(home), pytest.raises((UnsafeFolder, OSError), match="link"):
        HybridQueue("link", home)


def test_a_link_in_place_of_one_of_our_files_is_refused(home: Path) -> None:
    [segment] = (home / "q").glob("*.seg")
    elsewhere = home / "elsewhere"
    segment.rename(elsewhere)
    segment.symlink_to(elsewhere)
    with nothing_changes(home), pytest.raises(UnsafeFolder, match=r"seg"):
        HybridQueue("q", home)
    segment.unlink()
    elsewhere.rename(segment)
    lock = home / "q" / "lock"
    lock.unlink()
    lock.symlink_to(home / "target")
    with nothing_changes(home), pytest.raises(UnsafeFolder, match="lock"):
        HybridQueue("q", home)
    assert not (home / "target").exists()


def test_a_folder_of_a_newer_format_is_left_as_it_is(home: Path) -> None:
    [segment] = (home / "q").glob("*.seg")
    data = bytearray(segment.read_bytes())
    struct.pack_into("<H", data, 8, 2)
    struct.pack_into("<I", data, 124, crc32c.crc32c(bytes(data[:124])))
    segment.write_bytes(data)
    with nothing_changes(home), pytest.raises(UnknownFormat, match="version") as caught:
        HybridQueue("q", home)
    assert segment.name in str(caught.value)
    with nothing_changes(home):
        HybridQueue.inspect(home / "q")


def test_foreign_files_in_the_folder_are_left_alone_and_reported(home: Path) -> None:
    (home / "q" / "notes.txt").write_text("mine")
    with HybridQueue("q", home) as q:
        assert list(q) == ["a", "b", "c"]
        assert "notes.txt" in q.recovery.unknown_names
    assert (home / "q" / "notes.txt").read_text() == "mine"


def test_looking_at_what_is_no_queue_is_an_error_and_creates_nothing(tmp_path: Path) -> None:
    with nothing_changes(tmp_path):
        for path in (tmp_path / "absent", tmp_path / "absent" / "deeper"):
            with pytest.raises((QueueError, FileNotFoundError), match="absent"):
                HybridQueue.inspect(path)


# --- who holds it


def test_a_second_opener_in_the_same_process_is_told_who_holds_it(home: Path) -> None:
    with HybridQueue("q", home) as q:
        with nothing_changes(home), pytest.raises(QueueLocked, match=str(os.getpid())) as caught:
            HybridQueue("q", home)
        assert caught.value.pid == os.getpid()
        q.enqueue("d")
        assert len(q) == 4
    with HybridQueue("q", home) as q:
        assert len(q) == 4


def test_a_second_opener_in_another_process_is_told_who_holds_it(home: Path) -> None:
    program = """
import sys
from overspill import HybridQueue, QueueLocked
try:
    HybridQueue("q", sys.argv[1])
except QueueLocked as error:
    print(error.pid, error)
"""
    with HybridQueue("q", home) as q, nothing_changes(home):
        outcome = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, text=True, timeout=60)
        assert outcome.stdout.startswith(f"{os.getpid()} "), outcome
        assert outcome.stdout.count(str(os.getpid())) >= 2, "the sentence says it, too"
        assert list(q) == ["a", "b", "c"]


def test_the_lock_dies_with_its_process(home: Path) -> None:
    program = """
import sys
from overspill import HybridQueue
q = HybridQueue("q", sys.argv[1])
q.enqueue("d")
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(QueueLocked, match=str(child.pid)):
            HybridQueue("q", home)
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    with HybridQueue("q", home) as q:
        assert list(q) == ["a", "b", "c", "d"]


# --- forked children


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])
@pytest.mark.parametrize("durability", list(Durability), ids=lambda durability: durability.name)
def test_a_forked_child_gets_a_clear_error_from_every_verb_and_the_parent_is_unharmed(home: Path, durability: Durability, plain: bool) -> None:
    with HybridQueue("q", home, memory_size=2, durability=durability, _plain=plain) as q:
        delivery = q.lease()
        verbs: dict[str, Callable[[], Any]] = {
            "enqueue": lambda: q.enqueue("child"), "enqueue_batch": lambda: q.enqueue_batch(["child"]), "enqueue_front": lambda: q.enqueue_front("child"),
            "dequeue": lambda: q.dequeue(timeout=0), "try_dequeue": q.try_dequeue, "dequeue_batch": lambda: q.dequeue_batch(5), "peek": q.peek, "iter": lambda: list(q),
            "lease": lambda: q.lease(timeout=0), "lease_batch": lambda: q.lease_batch(1), "ack": delivery.ack, "nack": delivery.nack, "extend": lambda: delivery.extend(5),
            "flush": q.flush_to_disk, "sync": q.sync, "clear": q.clear, "remove_where": lambda: q.remove_where(bool), "cleanup": q.cleanup, "compact": q.compact,
            "shrink": q.shrink_memory, "compact_memory": q.compact_memory, "limit": lambda: q.set_memory_limit(1), "destroy": q.destroy,
            "len": lambda: len(q), "size": lambda: q.size, "stats": q.stats, "letters": q.dead_letters.replay,
        }  # fmt: skip

        def child() -> str:
            calm = []
            for name, verb in verbs.items():
                try:
                    verb()
                except QueueClosed as error:
                    if PARENT_ONLY not in str(error) or str(os.getppid()) not in str(error):
                        calm.append(f"{name}: {error}")
                else:
                    calm.append(f"{name} worked")
            q.close()
            repr(q)
            return "\n".join(calm)

        with nothing_changes(home):
            assert in_a_fork(child) == ""
        q.enqueue("d")
        delivery.ack()
        assert list(q) == ["b", "c", "d"]
        assert q.stats().balance == 0
    with HybridQueue("q", home) as q:
        assert list(q) == ["b", "c", "d"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_may_open_a_queue_of_its_own_but_not_the_parents(home: Path) -> None:
    def child() -> str:
        with HybridQueue("own", home) as own:
            own.enqueue("x")
            first = own.dequeue()
        HybridQueue("q", home)
        return str(first)

    with HybridQueue("q", home) as q:
        said = in_a_fork(child)
        assert said.startswith("QueueLocked") and str(os.getpid()) in said
        q.enqueue("d")
    with HybridQueue("q", home) as q:
        assert len(q) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_lock_is_not_inherited_by_a_child_that_outlives_the_parents_close(home: Path) -> None:
    q = HybridQueue("q", home)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # live until the parent says so
        os._exit(0)
    os.close(reading)
    try:
        q.close()
        with HybridQueue("q", home) as q:
            assert len(q) == 3
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


# --- items


def test_bad_items_change_nothing_on_disk(home: Path) -> None:
    with HybridQueue("q", home, max_item_size=100, sync_interval=None) as q:
        q.enqueue("d")
        with nothing_changes(home):
            with pytest.raises(ItemTooLarge):
                q.enqueue(b"x" * 101)
            with pytest.raises(NotSerializable):
                q.enqueue(object())
            with pytest.raises(NotSerializable):
                q.enqueue_batch(["good", object()])
            for bad in ({"priority": 256}, {"priority": "high"}, {"ttl": -1}, {"durability": "power"}, {"durability": Durability.MEMORY}):
                with pytest.raises(InvalidOption):
                    q.enqueue("x", **bad)
        assert list(q) == ["a", "b", "c", "d"]


def test_use_after_close_changes_nothing_on_disk(home: Path) -> None:
    q = HybridQueue("q", home)
    q.close()
    with nothing_changes(home):
        for verb in (lambda: q.enqueue("x"), q.dequeue, q.clear, q.cleanup, q.compact, q.flush_to_disk):
            with pytest.raises(QueueClosed):
                verb()
        q.close()


@pytest.mark.parametrize("call", [
    lambda q: q.dequeue(timeout=-1), lambda q: q.dequeue(timeout="x"), lambda q: q.dequeue(timeout=NAN), lambda q: q.dequeue_batch(0), lambda q: q.dequeue_batch(-1), lambda q: q.dequeue_batch(1.5),
    lambda q: q.dequeue_batch(True), lambda q: q.lease(timeout=-1), lambda q: q.lease_batch(0), lambda q: q.flush_to_disk(-1), lambda q: q.flush_to_disk("all"), lambda q: q.flush_oldest(-1),
    lambda q: q.set_memory_limit(0), lambda q: q.set_memory_limit("1MiB"), lambda q: q.remove_where(None), lambda q: q.close(drain=-1), lambda q: q.dequeue_batch(5, timeout=-1),
])  # fmt: skip
def test_a_bad_argument_of_a_taking_verb_is_refused_and_takes_nothing(home: Path, call: Callable[[HybridQueue], object]) -> None:
    with HybridQueue("q", home) as q:
        with pytest.raises(InvalidOption):
            call(q)
        assert list(q) == ["a", "b", "c"]


def test_a_misspelt_keyword_is_a_type_error(home: Path) -> None:
    with HybridQueue("q", home) as q:
        for call in (lambda: q.enqueue("x", prio=5), lambda: q.enqueue("x", 200), lambda: q.dequeue(timeuot=1), lambda: q.enqueue()):
            with pytest.raises(TypeError):
                call()
        assert len(q) == 3
