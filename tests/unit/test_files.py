"""The door to the disk: what it makes is private and has its blocks, what it opens is ours, and what it refuses it leaves as it was."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overspill._store.files import Access, Disk, Entry, _file_system
from overspill._store.layout import LOCK_NAME, REPORT_NAME, prepared_name, segment_name, spare_name
from overspill.errors import InvalidOption, QueueError, UnsafeFolder

NOBODY = 65534
NAMES = [LOCK_NAME, segment_name(1), prepared_name(1), spare_name(1), REPORT_NAME]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to somebody else")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk.create_folder(tmp_path, "q") as disk:
        yield disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A queue's folder on a file system of one MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("NOT TESTED: a full disk, because a small tmpfs could not be mounted here")
    try:
        with Disk.create_folder(mount, "q") as disk:
            yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.fixture(params=[0o000, 0o077], ids=["umask-000", "umask-077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything about a folder that a touch would change."""
    return {
        str(path): (at.st_mode, at.st_uid, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_nlink)
        for path in [folder, *folder.rglob("*")]
        for at in [path.lstat()]
    }


class Recorder(Disk):
    """Notes which folder's names were synced when, and which were made."""

    seen: list[tuple[str, str]] = []

    @classmethod
    def make_folder(cls, name: str, parent: int) -> bool:
        made = super().make_folder(name, parent)
        if made:
            cls.seen.append(("make", os.path.join(os.readlink(f"/proc/self/fd/{parent}"), name)))
        return made

    @classmethod
    def sync(cls, folder: int) -> None:
        super().sync(folder)
        cls.seen.append(("sync", os.readlink(f"/proc/self/fd/{folder}")))


# --- folders


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    with Disk.create_folder(tmp_path / "a" / "b", "q") as disk, disk.subfolder("quarantine") as aside:
        os.close(disk.create(segment_name(1), 4096))
        os.close(aside.create(REPORT_NAME, 0))
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/q", "a/b/q/quarantine")] == [0o700] * 4
    assert [mode(tmp_path / "a/b/q" / part) for part in (segment_name(1), "quarantine/report.jsonl")] == [0o600] * 2


def test_setgid_parent_does_not_change_the_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    Disk.create_folder(tmp_path, "q").close()
    assert mode(tmp_path / "q") == 0o700


def test_each_new_folder_is_synced_in_its_parent_before_anything_is_made_in_it(tmp_path: Path) -> None:
    base = str(tmp_path)
    Recorder.seen = []
    Recorder.create_folder(tmp_path / "a" / "b", "q").close()
    assert Recorder.seen == [
        ("sync", os.path.dirname(base)),
        ("make", f"{base}/a"), ("sync", base),
        ("make", f"{base}/a/b"), ("sync", f"{base}/a"),
        ("make", f"{base}/a/b/q"), ("sync", f"{base}/a/b"),
    ]  # fmt: skip


def test_folder_left_by_a_kill_before_its_sync_is_synced_by_the_next_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "q").mkdir(parents=True, mode=0o700)
    Recorder.seen = []
    Recorder.create_folder(tmp_path / "a", "q").close()
    assert Recorder.seen == [("sync", str(tmp_path)), ("sync", str(tmp_path / "a"))]


def test_folder_that_is_there_is_opened_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir(mode=0o750)
    (tmp_path / "q" / "notes.txt").write_bytes(b"hello")
    before = snapshot(tmp_path / "q")
    with Disk.create_folder(tmp_path, "q") as disk:
        assert disk.listing() == [Entry("notes.txt", 5)]
    assert snapshot(tmp_path / "q") == before


def test_disk_path_may_be_relative_and_lead_through_symlinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    with Disk.create_folder("link/../link/new", "q") as disk:
        assert disk.path == "link/../link/new/q"
    assert (tmp_path / "real" / "new" / "q").is_dir()
    for way in (".", "real/new/q", "real/new/q//", "link/new/q"):
        Disk.open_folder(way).close()


@pytest.mark.parametrize("where", ["file", "file/below", "file/below/that"])
def test_disk_path_that_is_a_file_is_said_to_be_one(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(InvalidOption, match="disk_path.*is not a folder"):
        Disk.create_folder(tmp_path / where, "q")
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_folder_that_is_not_there_is_not_found_and_not_made(tmp_path: Path) -> None:
    for access in Access:
        with pytest.raises(FileNotFoundError):
            Disk.open_folder(tmp_path / "q", access)
    assert not list(tmp_path.iterdir())


def plant_symlink(path: Path) -> None:
    target = path.parent.parent / "target"
    target.write_bytes(b"not ours")
    path.symlink_to(target)


def plant_dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parent.parent / "nowhere")


def plant_symlink_to_folder(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to("elsewhere")


def plant_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def plant_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def plant_device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 7))  # /dev/full
    except PermissionError:
        pytest.skip("NOT TESTED: a device in place of a file, because none can be made here")


def plant_folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def plant_hard_link(path: Path) -> None:
    other = path.parent.parent / "other-name"
    other.write_bytes(b"not ours")
    os.link(other, path)


def plant_foreign_file(path: Path) -> None:
    if os.geteuid():
        pytest.skip("NOT TESTED: somebody else's file, which takes root to make")
    path.write_bytes(b"not ours")
    os.chown(path, NOBODY, NOBODY)


def plant_file(path: Path) -> None:
    path.write_bytes(b"not ours")


Plant = Callable[[Path], None]
Open = Callable[[], Disk]


@pytest.mark.parametrize("plant", [plant_symlink, plant_dangling_symlink, plant_symlink_to_folder, plant_fifo, plant_socket, plant_file])
def test_what_is_no_folder_is_refused_as_one_and_left_alone(tmp_path: Path, plant: Plant) -> None:
    (tmp_path / "base").mkdir()
    plant(tmp_path / "base" / "q")
    before = snapshot(tmp_path)
    ways: list[Open] = [
        lambda: Disk.create_folder(tmp_path / "base", "q"),
        lambda: Disk.open_folder(tmp_path / "base" / "q"),
        lambda: Disk.open_folder(f"{tmp_path}/base/q/"),
        lambda: Disk.open_folder(tmp_path / "base" / "q", Access.LOOK),
    ]
    for way in ways:
        with pytest.raises(UnsafeFolder, match="not a folder"):
            way()
    assert snapshot(tmp_path) == before


@needs_root
def test_folder_of_another_user_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    before = snapshot(folder)
    ways: list[Open] = [lambda: Disk.create_folder(tmp_path, "q"), lambda: Disk.open_folder(folder)]
    for way in ways:
        with pytest.raises(UnsafeFolder, match="belongs to user 65534") as refused:
            way()
        assert isinstance(refused.value, PermissionError) and isinstance(refused.value, QueueError)
    assert snapshot(folder) == before


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777, 0o1777])
def test_folder_that_others_may_write_to_is_refused_and_left_alone(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "q"
    folder.mkdir()
    folder.chmod(bits)
    before = snapshot(folder)
    ways: list[Open] = [
        lambda: Disk.create_folder(tmp_path, "q"),
        lambda: Disk.open_folder(folder),
        lambda: Disk.open_folder(folder, Access.LOOK),
    ]
    for way in ways:
        with pytest.raises(UnsafeFolder, match=f"{bits:04o}"):
            way()
    assert snapshot(folder) == before


@needs_root
def test_folder_that_this_user_may_not_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    folder.mkdir()
    folder.chmod(0o500)
    tmp_path.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chdir(tmp_path)  # the folders above it are root's alone
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                Disk.open_folder("q")
            except UnsafeFolder as error:
                code = 0 if "may not write" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_folder_is_held_by_descriptor_and_not_by_name(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "q").rename(tmp_path / "moved")
    (tmp_path / "q").mkdir(mode=0o700)
    os.close(disk.create(segment_name(1), 4096))
    assert [path.name for path in (tmp_path / "moved").iterdir()] == [segment_name(1)]


# --- files


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "plant",
    [plant_symlink, plant_dangling_symlink, plant_fifo, plant_socket, plant_device, plant_folder, plant_hard_link, plant_foreign_file],
)
def test_planted_thing_is_refused_for_every_name_and_left_alone(tmp_path: Path, disk: Disk, plant: Plant, name: str) -> None:
    plant(tmp_path / "q" / name)
    before = snapshot(tmp_path)
    ways: list[Callable[[], int]] = [lambda: disk.open_rw(name), lambda: disk.open_ro(name), lambda: disk.create(name, 4096)]
    for way in ways:
        with pytest.raises(UnsafeFolder, match=name.replace(".", r"\.")):
            way()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("plant", [plant_symlink, plant_dangling_symlink, plant_fifo])
def test_thing_planted_between_look_and_open_is_refused(tmp_path: Path, plant: Plant) -> None:
    path = tmp_path / "q" / segment_name(1)

    class Raced(Disk):
        def _look(self, name: str) -> None:
            super()._look(name)
            path.unlink()
            plant(path)

    with Raced.create_folder(tmp_path, "q") as disk:
        for way in (disk.open_rw, disk.open_ro):
            path.unlink(missing_ok=True)
            os.close(Disk.create(disk, segment_name(1), 0))
            with pytest.raises(UnsafeFolder):
                way(segment_name(1))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../q/lock", "nul\0"])
def test_name_that_leads_out_of_the_folder_is_a_bug(disk: Disk, name: str) -> None:
    for way in (lambda: disk.create(name, 0), lambda: disk.open_ro(name), lambda: disk.unlink(name), lambda: disk.rename(name, "x")):
        with pytest.raises(AssertionError):
            way()


def test_created_file_has_its_blocks_and_is_not_inherited(disk: Disk) -> None:
    fd = disk.create(segment_name(1), 1 << 20)
    at = os.fstat(fd)
    assert at.st_size == disk.size(fd) == 1 << 20 and at.st_blocks * 512 >= 1 << 20
    assert not os.get_inheritable(fd)
    disk.allocate(fd, 2 << 20)
    assert disk.size(fd) == 2 << 20
    disk.truncate(fd, 100)
    assert disk.size(fd) == 100
    disk.close_file(fd)


def test_name_that_is_taken_is_not_created_again(disk: Disk) -> None:
    fd = disk.create(segment_name(1), 4096)
    disk.pwrite(fd, b"kept", 0)
    with pytest.raises(FileExistsError):
        disk.create(segment_name(1), 4096)
    assert disk.pread(fd, 4, 0) == b"kept"
    os.close(fd)


def test_full_disk_leaves_no_file_behind_and_goes_on_when_there_is_room(small_disk: Disk) -> None:
    os.close(small_disk.create("big", 512 << 10))
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="No space") as full:
            small_disk.create(segment_name(1), 768 << 10)
        assert full.value.errno == errno.ENOSPC
    assert small_disk.listing() == [Entry("big", 512 << 10)]
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert small_disk.free_bytes() == 512 << 10
    small_disk.unlink("big")
    os.close(small_disk.create(segment_name(1), 768 << 10))


def test_growing_on_a_full_disk_keeps_what_was_there(small_disk: Disk) -> None:
    fd = small_disk.create(segment_name(1), 512 << 10)
    small_disk.pwrite(fd, b"kept", 0)
    with pytest.raises(OSError) as full:
        small_disk.allocate(fd, 2 << 20)
    assert full.value.errno == errno.ENOSPC
    assert small_disk.pread(fd, 4, 0) == b"kept"
    small_disk.pwrite(fd, b"x" * 4096, (512 << 10) - 4096)
    os.close(fd)


def test_file_size_limit_leaves_no_file_behind(disk: Disk) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(OSError) as too_large:
            disk.create(segment_name(1), 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert too_large.value.errno == errno.EFBIG
    assert disk.listing() == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP])
def test_failed_allocation_leaves_no_file_where_preallocation_is_a_promise(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(error, os.strerror(error))

    assert disk.preallocation_holds(), "these tests want ext4, xfs or tmpfs under the temporary folder"
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError) as refused:
        disk.create(segment_name(1), 4096)
    assert refused.value.errno == error
    assert disk.listing() == []


def test_allocation_that_was_only_claimed_is_found_out(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, offset, size: os.ftruncate(fd, size))
    with pytest.raises(OSError) as short:
        disk.create(segment_name(1), 1 << 20)
    assert short.value.errno == errno.ENOSPC
    assert disk.listing() == []


def test_file_system_without_preallocation_gets_a_file_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Disk):
        def preallocation_holds(self) -> bool:
            return False

    def unsupported(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    with Plain.create_folder(tmp_path, "q") as disk:
        fd = disk.create(segment_name(1), 4096)
        assert disk.size(fd) == 4096
        disk.allocate(fd, 100)
        assert disk.size(fd) == 4096
        os.close(fd)


# --- reading, writing, names


class Short(Disk):
    """Writes three bytes at a time, then one, then none at all."""

    steps: list[int] = []

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        step = self.steps.pop(0) if self.steps else 3
        return os.pwrite(fd, data[:step], offset) if step else 0


@pytest.mark.parametrize("data", [b"0123456789", bytearray(b"0123456789"), memoryview(b"0123456789"), memoryview(b"\1\0\2\0").cast("H")])
def test_short_writes_are_finished(tmp_path: Path, data: bytes | bytearray | memoryview) -> None:
    with Short.create_folder(tmp_path, "q") as disk:
        fd = disk.create("x", 0)
        disk.pwrite(fd, data, 5)
        assert disk.pread(fd, 99, 0) == bytes(5) + bytes(data)
        os.close(fd)


def test_write_without_progress_is_an_error_and_no_loop(tmp_path: Path) -> None:
    with Short.create_folder(tmp_path, "q") as disk:
        fd = disk.create("x", 0)
        disk.steps = [3, 1, 0]
        with pytest.raises(OSError) as stuck:
            disk.pwrite(fd, b"0123456789", 0)
        assert stuck.value.errno == errno.EIO
        os.close(fd)


def test_read_gives_less_only_at_the_end(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = disk.create("x", 0)
    disk.pwrite(fd, b"0123456789", 0)
    assert disk.pread(fd, 4, 8) == b"89"
    assert disk.pread(fd, 4, 99) == b""
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, offset: pread(fd, min(n, 3), offset))
    assert disk.pread(fd, 8, 1) == b"12345678"
    assert disk.pread(fd, 99, 1) == b"123456789"
    os.close(fd)


def test_rename_unlink_and_listing(disk: Disk) -> None:
    fd = disk.create(prepared_name(1), 4096)
    disk.datasync(fd)
    disk.rename(prepared_name(1), segment_name(1))
    disk.sync_folder()
    assert disk.names(segment_name(1), fd) and not disk.names(prepared_name(1), fd)
    with disk.subfolder("quarantine") as aside:
        disk.rename(segment_name(1), "kept", aside)
        assert aside.listing() == [Entry("kept", 4096)]
        assert [name for name, _ in disk.listing()] == ["quarantine"]
        assert [name for name, _ in disk.listing()] == ["quarantine"]
        aside.unlink("kept")
        with pytest.raises(FileNotFoundError):
            aside.unlink("kept")
    os.close(fd)


def test_one_folder_has_one_identity_by_every_way(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with Disk.open_folder(tmp_path / "link" / "q") as again:
        assert again.identity() == disk.identity()


def test_lock_is_taken_once(disk: Disk) -> None:
    first = disk.create("x", 0)
    second = disk.open_rw("x")
    assert disk.try_lock(first) and not disk.try_lock(second)
    os.close(first)
    assert disk.try_lock(second)
    os.close(second)


# --- looking


def test_look_reads_and_never_writes(tmp_path: Path, disk: Disk) -> None:
    fd = disk.create(segment_name(1), 4096)
    disk.pwrite(fd, b"seen", 0)
    before = snapshot(tmp_path)
    with Disk.open_folder(tmp_path / "q", Access.LOOK) as look:
        seen = look.open_ro(segment_name(1))
        assert look.pread(seen, 4, 0) == b"seen" and look.listing() == [Entry(segment_name(1), 4096)]
        for way in (
            lambda: look.create("new", 0), lambda: look.open_rw(segment_name(1)), lambda: look.unlink(segment_name(1)),
            lambda: look.rename(segment_name(1), "new"), lambda: look.pwrite(seen, b"x", 0), lambda: look.truncate(seen, 0),
            lambda: look.allocate(seen, 1), lambda: look.datasync(seen), look.sync_folder, lambda: look.try_lock(seen),
        ):  # fmt: skip
            with pytest.raises(AssertionError):
                way()
        with pytest.raises(FileNotFoundError):
            look.subfolder("quarantine")
        os.close(seen)
    assert snapshot(tmp_path) == before
    os.close(fd)


@needs_root
def test_root_may_look_at_a_users_queue_but_not_own_it(tmp_path: Path, disk: Disk) -> None:
    os.close(disk.create(segment_name(1), 4096))
    os.close(disk.create(segment_name(2), 4096))
    os.chown(tmp_path / "q", NOBODY, NOBODY)
    os.chown(tmp_path / "q" / segment_name(1), NOBODY, NOBODY)
    with pytest.raises(UnsafeFolder):
        Disk.open_folder(tmp_path / "q")
    with Disk.open_folder(tmp_path / "q", Access.LOOK) as look:
        os.close(look.open_ro(segment_name(1)))
        with pytest.raises(UnsafeFolder, match="belongs to user 0, the folder to user 65534"):
            look.open_ro(segment_name(2))


# --- which file systems keep their word


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_preallocation_is_believed_only_of_file_systems_known_for_it(tmp_path: Path) -> None:
    lower, upper, work, merged = (tmp_path / part for part in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(merged)], check=False).returncode:
        pytest.skip("NOT TESTED: an overlay, because none could be mounted here")
    try:
        with Disk.create_folder(merged, "q") as disk:
            assert not disk.preallocation_holds()
            os.close(disk.create(segment_name(1), 4096))
    finally:
        subprocess.run(["umount", "--lazy", str(merged)], check=True)


def test_small_tmpfs_holds_what_it_preallocates(small_disk: Disk) -> None:
    assert small_disk.preallocation_holds()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_file_system_that_cannot_be_told_promises_nothing() -> None:
    reader, writer = os.pipe()
    try:
        assert _file_system(reader) not in ("ext4", "xfs", "tmpfs")
    finally:
        os.close(reader)
        os.close(writer)
    assert _file_system(reader) == ""


def test_a_hole_gives_its_blocks_back_and_reads_as_zeros(disk: Disk) -> None:
    fd = disk.create("file", 0)
    disk.pwrite(fd, b"x" * 65536, 0)
    disk.datasync(fd)
    before = os.fstat(fd)
    if not disk.punch_hole(fd, 4096, 40960):
        pytest.skip("NOT TESTED: this file system cannot punch holes")
    after = os.fstat(fd)
    assert after.st_size == before.st_size and before.st_blocks - after.st_blocks == 40960 // 512
    assert disk.pread(fd, 65536, 0) == b"x" * 4096 + bytes(40960) + b"x" * 20480
    with pytest.raises(OSError, match="Invalid"):
        disk.punch_hole(fd, -1, 4096)
    disk.close_file(fd)
