"""The one door to the disk: nothing else opens, writes, syncs, renames or removes.

A `Disk` stands for one folder, held by descriptor, so that a folder renamed or replaced under its name changes nothing.
Its methods are verbs at the level of one system call each, and the rest of the store calls no others: a test that wants a fault,
or an image of what was durable when, overrides them. They keep no state, take no lock and drop the GIL while they wait.

What is promised here:

* A name leads to a regular file of ours, or to `UnsafeFolder`: no symlink is followed, no FIFO or device is opened,
  no file with a second name or another owner is used. Names are relative to the descriptor and have no separator.
* What is made is private (0600, folders 0700), whatever the umask.
* A created file has its blocks: `create` returns a file that is allocated and was looked at, or raises and leaves none.
  Only where `preallocation_holds` may a store into a mapping of it rely on that; elsewhere use `pwrite`.
* `pwrite` writes all of it or raises. A sync that failed has to be taken for a loss: the caller must not repeat it.
* A folder that was made for a queue is durable by name, with every folder above it that had to be made.

Left to others: what to do about an error (the store), who may have the folder open (`folder`), what the bytes mean (`layout`).
An `OSError` passes as it is, with its errno: EMFILE is not damage, and ENOSPC is not broken.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
from enum import Enum
from typing import Final, NamedTuple, Self

from ..errors import InvalidOption, UnsafeFolder

StrPath = str | os.PathLike[str]
Buffer = bytes | bytearray | memoryview

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK means nothing to a regular file; it keeps the open of a FIFO, planted between look and open, from waiting for a writer.
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# On these, a block that fallocate has given is there when it is written: no copy-on-write, no pool to share, no server to
# ask. (A reflink of a live segment on XFS would undo it; nothing but our own backup tool should make one, and it does not.)
_PREALLOCATION_HOLDS: Final = frozenset({"ext4", "xfs", "tmpfs"})


# Python's `os` has no `fallocate` with a mode.
_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Access(Enum):
    """What a `Disk` may do."""

    OWN = "own"  # read and write: the caller takes the folder's lock before it does
    LOOK = "look"  # read beside a running owner: nothing is written, locked or made


class Entry(NamedTuple):
    name: str
    size: int


class Disk:
    """One folder, by descriptor. Made by `open_folder` or `create_folder`."""

    def __init__(self, folder: int, path: str, access: Access) -> None:
        self.path = path
        self.access = access
        self._folder = folder
        self._owner = os.fstat(folder).st_uid
        self._preallocates = self.preallocation_holds()

    # --- the folder itself

    @classmethod
    def open_folder(cls, path: StrPath, access: Access = Access.OWN) -> Self:
        """The queue's folder, which must be there; refused untouched if it is not safely ours."""
        path = os.path.abspath(path) if os.fspath(path) in (".", "..") else os.fspath(path).rstrip("/") or "/"
        return cls._opened(path, None, path, access)

    @classmethod
    def create_folder(cls, disk_path: StrPath, name: str) -> Self:
        """The folder `<disk_path>/<name>`, made if it is not there, with what is missing of `disk_path`."""
        shown = os.path.join(os.fspath(disk_path), name)
        base, missing = cls._deepest_folder(disk_path)
        try:
            # Whoever made this one may have been killed before the sync. Synced before anything is made in it, every
            # name above it is durable: at most the deepest folder can ever lack that.
            cls._sync_name_of(base)
            for part in missing:
                base = cls._step_into(base, part, disk_path)
            try:
                made = cls.make_folder(name, base)
            except PermissionError as error:
                raise UnsafeFolder(os.fspath(disk_path), f"it is not writable for this user, so {name!r} cannot be made in it") from error
            cls.sync(base)
            disk = cls._opened(name, base, shown, Access.OWN)
        finally:
            os.close(base)
        return disk._made_private() if made else disk

    def subfolder(self, name: str) -> Self:
        """A folder within this one, made if it is not there (unless this is a look)."""
        _assert_plain(name)
        made = False
        if self.access is Access.OWN:
            made = self.make_folder(name, self._folder)
            if made:
                self.sync_folder()
        disk = self._opened(name, self._folder, self.path_of(name), self.access)
        return disk._made_private() if made else disk

    def preallocation_holds(self) -> bool:
        """Whether a block that was allocated can always be written: false for a file system that is not known to promise it."""
        return _file_system(self._folder) in _PREALLOCATION_HOLDS

    def sync_folder(self) -> None:
        """Make names durable: creations, renames and removals so far."""
        self._assert_own()
        self.sync(self._folder)

    def listing(self) -> list[Entry]:
        """Every name in the folder, whatever it is, in order."""
        entries = []
        # Through a descriptor of its own: reading a folder moves the position that all copies of one share.
        fd = os.open(".", _FOLDER, dir_fd=self._folder)
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    try:
                        entries.append(Entry(entry.name, entry.stat(follow_symlinks=False).st_size))
                    except FileNotFoundError:
                        continue  # removed since, by the owner beside whom we look
        finally:
            os.close(fd)
        return sorted(entries)

    def free_bytes(self) -> int:
        """What this user may still write to the file system."""
        at = os.fstatvfs(self._folder)
        return at.f_bavail * at.f_frsize

    def identity(self) -> tuple[int, int]:
        """Device and inode: the same for two names of one folder."""
        at = os.fstat(self._folder)
        return at.st_dev, at.st_ino

    def path_of(self, name: str) -> str:
        """For messages only: files are reached through the descriptor."""
        return os.path.join(self.path, name)

    def remove_folder(self) -> None:
        """Delete the folder and everything in it. The caller holds its lock, and has no more use for it."""
        self._assert_own()
        if os.stat(self.path, follow_symlinks=False).st_ino != self.identity()[1]:
            raise UnsafeFolder(self.path, "another folder has taken its name since it was opened")
        shutil.rmtree(self.path)
        parent = os.open(os.path.dirname(os.path.abspath(self.path)), _FOLDER)
        try:
            self.sync(parent)
        finally:
            os.close(parent)

    def close(self) -> None:
        """Give the folder's descriptor back. Files that are open stay open."""
        if self._folder >= 0:
            folder, self._folder = self._folder, -1
            os.close(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- files by name

    def create(self, name: str, size: int) -> int:
        """A new file of `size` allocated bytes, open for reading and writing. On any error there is no file."""
        self._assert_own()
        _assert_plain(name)
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, FILE_MODE, dir_fd=self._folder)
        except FileExistsError:
            self._look(name)  # names a planted thing as what it is
            raise
        try:
            os.fchmod(fd, FILE_MODE)  # the umask has taken bits away, if any; this says what they are
            if size:
                self.allocate(fd, size)
        except BaseException:
            os.close(fd)
            os.unlink(name, dir_fd=self._folder)
            raise
        return fd

    def open_rw(self, name: str) -> int:
        self._assert_own()
        return self._open(name, os.O_RDWR)

    def open_ro(self, name: str) -> int:
        return self._open(name, os.O_RDONLY)

    def rename(self, old: str, new: str, into: Disk | None = None) -> None:
        """Give a file its new name (in the folder `into`), replacing what has it. Durable after `sync_folder` of both folders."""
        self._assert_own()
        _assert_plain(old)
        _assert_plain(new)
        os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=(into or self)._folder)

    def unlink(self, name: str) -> None:
        self._assert_own()
        _assert_plain(name)
        os.unlink(name, dir_fd=self._folder)

    def names(self, name: str, fd: int) -> bool:
        """Whether the name still leads to this open file."""
        _assert_plain(name)
        try:
            there, here = os.stat(name, dir_fd=self._folder, follow_symlinks=False), os.fstat(fd)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    # --- open files

    def allocate(self, fd: int, size: int) -> None:
        """Have blocks for the first `size` bytes; the file is at least that long afterwards. Raises ENOSPC, EDQUOT, EFBIG."""
        self._assert_own()
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if self._preallocates or error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            # No promise here, so none is broken: the plain writer meets a full disk in its writes.
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
        at = os.fstat(fd)
        if at.st_size < size or (self._preallocates and at.st_blocks * 512 < size):
            raise OSError(errno.ENOSPC, f"the file system gave {at.st_blocks * 512} of {size} bytes and called it done", self.path)

    def truncate(self, fd: int, size: int) -> None:
        self._assert_own()
        os.ftruncate(fd, size)

    def punch_hole(self, fd: int, offset: int, size: int) -> bool:
        """Give the blocks of a stretch back; it reads as zeros from then on, and the file's size stays. False where the file system cannot do that."""
        self._assert_own()
        if _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, size) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(number, os.strerror(number), self.path)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        """Write all of `data` at `offset`, in as many calls as it takes."""
        self._assert_own()
        done = 0
        if type(data) is bytes:
            done = self.write_some(fd, data, offset)  # nearly always all of it
            if done == len(data):
                return
        with memoryview(data).cast("B") as rest:
            while done < len(rest):
                written = self.write_some(fd, rest[done:], offset + done)
                if written <= 0:
                    raise OSError(errno.EIO, "a write ended without an error and without progress", self.path)
                done += written

    def write_some(self, fd: int, data: Buffer, offset: int) -> int:
        """One `pwrite`, which may write less. It is repeated by Python itself if a signal interrupts it."""
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        """`n` bytes from `offset`, fewer only at the end of the file."""
        data = os.pread(fd, n, offset)
        if len(data) == n or not data:
            return data
        parts = [data]  # the end of the file, or one of the rare short reads
        got = len(data)
        while got < n and (data := os.pread(fd, n - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        """One read into a buffer; returns how many bytes came, 0 at the end of the file."""
        return os.preadv(fd, [buffer], offset)

    def datasync(self, fd: int) -> None:
        """Make the file's bytes durable, those that were stored through a mapping too. Never to be repeated after a failure."""
        self._assert_own()
        os.fdatasync(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def try_lock(self, fd: int) -> bool:
        """Take the `flock` of this open file now, or not at all."""
        self._assert_own()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        """Give the `flock` back, also for a child that was forked meanwhile and has not yet closed its copy of the descriptor."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    def await_lock(self, fd: int) -> None:
        """Wait until nobody holds the `flock` of this open file. It is not kept."""
        fcntl.flock(fd, fcntl.LOCK_SH)
        fcntl.flock(fd, fcntl.LOCK_UN)

    def signal_changes(self) -> None:
        """Have the kernel send SIGIO whenever a file of the folder is made, written, renamed or removed, for as long as the folder is open."""
        fcntl.fcntl(self._folder, fcntl.F_NOTIFY, fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT)

    def close_file(self, fd: int) -> None:
        os.close(fd)

    # --- folders that are made: class methods, for there is no `Disk` of them yet

    @classmethod
    def make_folder(cls, name: str, parent: int) -> bool:
        """Make a private folder; False if the name was taken."""
        try:
            os.mkdir(name, FOLDER_MODE, dir_fd=parent)
        except FileExistsError:
            return False
        return True

    @classmethod
    def sync(cls, folder: int) -> None:
        """Make the names in a folder durable."""
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno != errno.EINVAL:  # "this kind of folder cannot be synced": it has no such thing as an unsynced name
                raise

    @classmethod
    def _deepest_folder(cls, disk_path: StrPath) -> tuple[int, list[str]]:
        """The deepest folder on the way to `disk_path` that exists, opened, and the names that are missing below it."""
        # `disk_path` may lead through symlinks, they are its owner's business; the queue's folder may not be one.
        path = os.path.realpath(disk_path)
        missing: list[str] = []
        while True:
            try:
                return os.open(path, _FOLDER), missing[::-1]
            except NotADirectoryError:
                raise _not_a_folder(disk_path, path) from None
            except FileNotFoundError:
                path, name = os.path.split(path)
                missing.append(name)

    @classmethod
    def _step_into(cls, parent: int, name: str, disk_path: StrPath) -> int:
        """Make one missing folder of `disk_path`, have its name durable, and go from its parent to it."""
        made = cls.make_folder(name, parent)
        cls.sync(parent)
        try:
            folder = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except NotADirectoryError:
            raise _not_a_folder(disk_path, name) from None
        if made:
            os.fchmod(folder, FOLDER_MODE)
        os.close(parent)
        return folder

    @classmethod
    def _sync_name_of(cls, folder: int) -> None:
        try:
            parent = os.open("..", _FOLDER, dir_fd=folder)
        except PermissionError:
            return  # then we cannot have made it in there
        try:
            cls.sync(parent)
        finally:
            os.close(parent)

    @classmethod
    def _opened(cls, name: str, parent: int | None, shown: str, access: Access) -> Self:
        """The folder as a `Disk`, after everything that `reliability.md` asks for has been looked at."""
        at = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(at.st_mode):
            raise UnsafeFolder(shown, f"it is {_kind(at.st_mode)}, not a folder", hint="move it away, or use another name")
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        try:
            at = os.fstat(fd)  # of what was opened, whatever the name led to a moment ago
            if access is Access.OWN and at.st_uid != os.geteuid():
                raise UnsafeFolder(shown, f"it belongs to user {at.st_uid} and this process is user {os.geteuid()}")
            if at.st_mode & _OTHERS_MAY_WRITE:
                raise UnsafeFolder(shown, f"its mode is {stat.S_IMODE(at.st_mode):04o}: others may write", hint="chmod go-w it")
            if access is Access.OWN and not os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
                if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), shown)
                raise UnsafeFolder(shown, "this user may not write to it", hint="chmod u+wx it")
            return cls(fd, shown, access)
        except BaseException:
            os.close(fd)
            raise

    def _made_private(self) -> Self:
        """Finish a folder that was just made: the umask may have taken bits, a setgid parent may have added one."""
        try:
            os.fchmod(self._folder, FOLDER_MODE)
        except BaseException:
            self.close()
            raise
        return self

    def _open(self, name: str, flags: int) -> int:
        _assert_plain(name)
        self._look(name)  # first, for opening a device may already do something
        try:
            fd = os.open(name, flags | _FILE, dir_fd=self._folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise UnsafeFolder(self.path_of(name), "it was replaced while it was opened") from None
            raise
        try:
            self._check(name, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _look(self, name: str) -> None:
        self._check(name, os.stat(name, dir_fd=self._folder, follow_symlinks=False))

    def _check(self, name: str, at: os.stat_result) -> None:
        if not stat.S_ISREG(at.st_mode):
            reason = f"it is {_kind(at.st_mode)}, not a regular file"
        elif at.st_nlink > 1:  # 0: just removed, or a file system that does not count
            reason = f"it has {at.st_nlink} names (hard links)"
        elif at.st_uid != self._owner:
            reason = f"it belongs to user {at.st_uid}, the folder to user {self._owner}"
        else:
            return
        raise UnsafeFolder(self.path_of(name), reason, hint="it is not the queue's; find out who put it there, and move it away")

    def _assert_own(self) -> None:
        assert self.access is Access.OWN, "a look never writes"


def _assert_plain(name: str) -> None:
    assert name not in ("", ".", "..") and "/" not in name and "\0" not in name, name


def _not_a_folder(disk_path: StrPath, found: str) -> InvalidOption:
    return InvalidOption("disk_path", os.fspath(disk_path), f"a folder, or a path where one can be made; {found!r} is not a folder")


_KINDS: Final = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symlink",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something unknown")


def _file_system(fd: int) -> str:
    """The name of the file system under an open file, as /proc knows it; "" if it does not say.

    By mount id and not by device number, which btrfs and overlay make up for each file.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            mount_id = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                mount, _, source = line.partition(" - ")
                if mount.split(" ", 1)[0] == mount_id:
                    return source.split(" ", 1)[0]
    except OSError:
        pass  # no /proc: nothing is known, so nothing is promised
    return ""
