"""Disks that fail, and disks that remember: shared fakes for whoever opens a queue with `_disk_class=`.

`faulty(...)` makes a `Disk` that fails the Nth call of one verb, once or from then on. `recording()` makes one that knows at any moment what a power cut
could leave behind; `Recording.moment()` freezes that, and `Moment.state(...)` draws one outcome of it.

The model of a power cut. A file's *durable* image is what it held at its last successful sync. Whatever was stored since lies in pages that the kernel may or may not have
written, each by itself, in any order, and each in any of the versions it had since: for every page one version is drawn, the durable one among them, or (*torn*) for every
sector of a page; a torn sector that held nothing durable may also hold garbage. (A sector that did hold something durable is written whole or not at all: no log that
appends within a sector could do without that.) A file's size is any that it had since its last sync. Of the names, everything before the last sync of
their folder is there, and of what was done since any prefix.

Stores into a mapping pass no `Disk`, which is why current images are read from the files themselves whenever `look` is called.
"""
from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from overspill._store.files import Disk

PAGE = 4096
SECTOR = 512

SHORT = "short"
"""In place of an errno: one `pwrite` call writes half, then the next fails with ENOSPC."""


# --- failing


class FaultyDisk(Disk):
    """The plan and the counts are the class's, because a queue makes its `Disk` itself: use `faulty`, which makes a class of its own."""

    verb: str = ""
    at: int = 0
    error: int | str = errno.EIO
    sticky: bool = False
    armed: bool = True
    words: bool = True
    """Whether the 8-byte writes of the plain writer (a settle mark, an attempt count) fail as well: they go to blocks that the file has."""
    calls: Counter[str]
    tripped: int = 0

    @classmethod
    def _due(cls, verb: str) -> bool:
        if not cls.armed:
            return False
        cls.calls[verb] += 1
        if verb != cls.verb or not (cls.calls[verb] == cls.at or (cls.sticky and cls.calls[verb] > cls.at)):
            return False
        cls.tripped += 1
        return True

    @classmethod
    def _fail(cls, verb: str) -> None:
        if cls._due(verb):
            number = errno.ENOSPC if isinstance(cls.error, str) else cls.error
            raise OSError(number, os.strerror(number) + " (injected)")

    @classmethod
    def arm(cls, at: int | None = None) -> None:
        cls.armed, cls.tripped = True, 0
        cls.calls.clear()
        if at is not None:
            cls.at = at

    @classmethod
    def heal(cls) -> None:
        cls.armed = False

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        # `pwrite` is one call to its caller and one here, however many pieces it takes.
        if self.error == SHORT and (self.words or len(data) != 8) and type(self)._due("pwrite"):
            half = len(data) // 2
            if half:
                os.pwrite(fd, data[:half], offset)
            raise OSError(errno.ENOSPC, "half was written (injected)")
        return super().write_some(fd, data, offset)

    def pwrite(self, fd: int, data: Any, offset: int) -> None:
        if self.error != SHORT and (self.words or len(data) != 8):
            type(self)._fail("pwrite")
        super().pwrite(fd, data, offset)


def _instance_verb(name: str) -> Callable[..., Any]:
    original = getattr(Disk, name)

    def call(self: FaultyDisk, *args: Any, **kwargs: Any) -> Any:
        type(self)._fail(name)
        return original(self, *args, **kwargs)

    call.__name__ = name
    return call


INSTANCE_VERBS = (
    "create", "allocate", "truncate", "datasync", "sync_folder", "rename", "unlink", "open_rw", "open_ro", "pread", "listing", "subfolder", "try_lock", "punch_hole",
)
for _name in INSTANCE_VERBS:
    setattr(FaultyDisk, _name, _instance_verb(_name))

CHANGING_VERBS = ("create", "allocate", "pwrite", "truncate", "datasync", "sync_folder", "rename", "unlink")


def faulty(verb: str, at: int = 1, error: int | str = errno.EIO, *, sticky: bool = False, armed: bool = True, words: bool = True) -> type[FaultyDisk]:
    """A `Disk` class whose call number `at` of `verb` fails (`sticky`: and all later ones), counted from the last `arm()`."""
    return type("Faulty_" + verb, (FaultyDisk,), {"verb": verb, "at": at, "error": error, "sticky": sticky, "armed": armed, "words": words, "calls": Counter(), "tripped": 0})


class StepDisk(Disk):
    """Calls `step(verb)` before and after every verb that changes something: to be killed there, or to look."""

    step: Callable[[str], None]


def _stepped(name: str) -> Callable[..., Any]:
    original = getattr(Disk, name)

    def call(self: StepDisk, *args: Any, **kwargs: Any) -> Any:
        type(self).step(name)
        result = original(self, *args, **kwargs)
        type(self).step("after " + name)
        return result

    call.__name__ = name
    return call


for _name in ("create", "allocate", "truncate", "datasync", "sync_folder", "rename", "unlink", "pwrite"):
    setattr(StepDisk, _name, _stepped(_name))


def stepping(step: Callable[[str], None]) -> type[StepDisk]:
    return type("Stepping", (StepDisk,), {"step": staticmethod(step)})


# --- remembering


class File:
    """One file, whatever its name is."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.current = durable
        self.versions: dict[int, list[bytes]] = {}
        self.sizes: list[int] = []

    def see(self, data: bytes) -> None:
        """This is what it holds now."""
        if data == self.current:
            return
        old = self.current
        if len(data) != len(old):
            self.sizes.append(len(data))
        for at in range(0, max(len(data), len(old)), PAGE):
            page = data[at : at + PAGE]
            if page != old[at : at + PAGE]:
                self.versions.setdefault(at // PAGE, []).append(page)
        self.current = data

    def synced(self, data: bytes) -> None:
        self.see(data)
        self.durable = data
        self.versions = {}
        self.sizes = []

    def frozen(self) -> Frozen:
        return Frozen(self.durable, self.current, {page: tuple(found) for page, found in self.versions.items()}, tuple(self.sizes))


@dataclass(frozen=True)
class Frozen:
    durable: bytes
    current: bytes
    versions: dict[int, tuple[bytes, ...]]
    sizes: tuple[int, ...]


@dataclass
class Change:
    """Something done to names, not yet durable."""

    folders: tuple[str, ...]
    apply: Callable[[dict[tuple[str, str], Any]], None]
    text: str


Names = dict[tuple[str, str], Any]
"""(folder, name) → File, or None for a folder."""


class Recording:
    """What one queue's folder was through, as a disk would know it."""

    def __init__(self, on_step: Callable[[str], None] | None = None) -> None:
        self.on_step = on_step
        self.names: Names = {}
        self.durable_names: Names = {}
        self.pending: list[Change] = []
        self._folders: dict[tuple[int, int], str] = {}
        self._files: dict[tuple[int, int], File] = {}
        self._paths: dict[str, str] = {}

    # what the disk tells

    def adopt(self, folder: int, path: str, name: str) -> None:
        """A folder is opened: what is in it already is durable."""
        at = os.fstat(folder)
        key = (at.st_dev, at.st_ino)
        if key in self._folders:
            return
        self._folders[key] = name
        self._paths[name] = path
        for entry in os.scandir(path):
            if entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as file:
                    known = File(file.read())
                self._files[(entry.stat().st_dev, entry.inode())] = known
                self.names[name, entry.name] = self.durable_names[name, entry.name] = known
            elif entry.is_dir(follow_symlinks=False):
                self.names[name, entry.name] = self.durable_names[name, entry.name] = None

    def folder_of(self, fd: int) -> str | None:
        at = os.fstat(fd)
        return self._folders.get((at.st_dev, at.st_ino))

    def created(self, folder: str, name: str, fd: int) -> None:
        at = os.fstat(fd)
        file = self._files[at.st_dev, at.st_ino] = File()
        file.see(os.pread(fd, at.st_size, 0))
        self._change((folder,), lambda names: names.__setitem__((folder, name), file), f"create {name}")

    def made_folder(self, folder: str, name: str) -> None:
        self._change((folder,), lambda names: names.__setitem__((folder, name), None), f"mkdir {name}")

    def renamed(self, old: tuple[str, str], new: tuple[str, str]) -> None:
        def apply(names: Names) -> None:
            if old in names:
                names[new] = names.pop(old)

        self._change(tuple({old[0], new[0]}), apply, f"rename {old[1]} {new[1]}")

    def unlinked(self, folder: str, name: str) -> None:
        self._change((folder,), lambda names: names.pop((folder, name), None) and None, f"unlink {name}")

    def _change(self, folders: tuple[str, ...], apply: Callable[[Names], None], text: str) -> None:
        apply(self.names)
        self.pending.append(Change(folders, apply, text))

    def synced_folder(self, folder: str) -> None:
        rest = []
        for change in self.pending:
            if folder in change.folders:
                change.apply(self.durable_names)
            else:
                rest.append(change)
        self.pending = rest

    def synced_file(self, fd: int) -> None:
        at = os.fstat(fd)
        self._files[at.st_dev, at.st_ino].synced(os.pread(fd, at.st_size, 0))

    def step(self, text: str) -> None:
        if self.on_step is not None:
            self.on_step(text)

    # what the test asks

    def look(self) -> None:
        """See what every file holds now."""
        for (folder, name), file in self.names.items():
            if file is not None:
                try:
                    with open(os.path.join(self._paths[folder], name), "rb", buffering=0) as opened:
                        file.see(opened.read())
                except FileNotFoundError:
                    pass

    def moment(self, label: str = "") -> Moment:
        """What is known now, frozen: durable and pending names, every file with all its versions."""
        self.look()
        frozen: dict[int, Frozen] = {}
        steps: list[dict[tuple[str, str], Frozen | None]] = []
        names = dict(self.durable_names)

        def freeze() -> dict[tuple[str, str], Frozen | None]:
            taken: dict[tuple[str, str], Frozen | None] = {}
            for key, file in names.items():
                if file is None:
                    taken[key] = None
                else:
                    if id(file) not in frozen:
                        frozen[id(file)] = file.frozen()
                    taken[key] = frozen[id(file)]
            return taken

        steps.append(freeze())
        for change in self.pending:
            change.apply(names)
            steps.append(freeze())
        return Moment(label, steps, [change.text for change in self.pending])


class RecordingDisk(Disk):
    recording: Recording

    def __init__(self, folder: int, path: str, access: Any) -> None:
        super().__init__(folder, path, access)
        self._told = os.path.basename(path) if os.path.basename(path) == "quarantine" else ""
        self.recording.adopt(folder, path, self._told)

    def create(self, name: str, size: int) -> int:
        self.recording.step(f"before create {name}")
        fd = super().create(name, size)
        self.recording.created(self._told, name, fd)
        self.recording.step(f"create {name}")
        return fd

    def rename(self, old: str, new: str, into: Disk | None = None) -> None:
        self.recording.look()
        super().rename(old, new, into)
        self.recording.renamed((self._told, old), ((into or self)._told, new))  # type: ignore[attr-defined]
        self.recording.step(f"rename {old} {new}")

    def unlink(self, name: str) -> None:
        self.recording.look()
        super().unlink(name)
        self.recording.unlinked(self._told, name)
        self.recording.step(f"unlink {name}")

    def truncate(self, fd: int, size: int) -> None:
        self.recording.look()
        super().truncate(fd, size)
        self.recording.step("truncate")

    def pwrite(self, fd: int, data: Any, offset: int) -> None:
        self.recording.look()
        super().pwrite(fd, data, offset)
        self.recording.step(f"pwrite {len(data)} at {offset}")

    def datasync(self, fd: int) -> None:
        self.recording.step("before datasync")
        super().datasync(fd)
        self.recording.synced_file(fd)
        self.recording.step("datasync")

    def sync_folder(self) -> None:
        self.recording.step("before sync_folder")
        super().sync_folder()
        self.recording.step("sync_folder")

    @classmethod
    def make_folder(cls, name: str, parent: int) -> bool:
        made = super().make_folder(name, parent)
        folder = cls.recording.folder_of(parent)
        if made and folder is not None:
            cls.recording.made_folder(folder, name)
        return made

    @classmethod
    def sync(cls, folder: int) -> None:
        super().sync(folder)
        name = cls.recording.folder_of(folder)
        if name is not None:
            cls.recording.synced_folder(name)


def recording(on_step: Callable[[str], None] | None = None) -> type[RecordingDisk]:
    """A `Disk` class with a `Recording` of its own, for one queue."""
    return type("Recorded", (RecordingDisk,), {"recording": Recording(on_step)})


State = dict[str, bytes | None]
"""Relative path → bytes, or None for a folder."""

MODELS = ("kill", "none", "names", "data", "prefix", "suffix", "subset", "segments", "one", "only", "torn", "garbage", "versions")


@dataclass
class Moment:
    label: str
    steps: list[dict[tuple[str, str], Frozen | None]]
    """The names after no pending change, after the first, … after all."""
    pending: list[str] = field(default_factory=list)

    def state(self, model: str, rng: random.Random) -> State:
        """What a power cut at this moment may leave (`kill`: what the death of the process leaves)."""
        if model == "kill":
            names = self.steps[-1]
        elif model == "none":
            names = self.steps[0]
        elif model in ("one", "only", "data"):
            names = self.steps[-1]
        else:
            names = self.steps[rng.randrange(len(self.steps))]
        files = {key: file for key, file in names.items() if file is not None}
        drawn = dict(self._draw(model, rng, files))
        folders = {key[1] for key, file in names.items() if file is None}
        state: State = dict.fromkeys(folders)
        for (folder, name), data in drawn.items():
            if not folder or folder in folders:
                state[os.path.join(folder, name)] = data
        return state

    def _draw(self, model: str, rng: random.Random, files: dict[tuple[str, str], Frozen]) -> Iterator[tuple[tuple[str, str], bytes]]:
        order = sorted(files)
        if model == "kill":
            yield from ((key, files[key].current) for key in order)
            return
        changed = [(key, page) for key in order for page in sorted(files[key].versions)]
        chosen: dict[tuple[tuple[str, str], int], int] = {}
        position = rng.randrange(len(changed) + 1)
        lucky = {key: rng.random() < 0.5 for key in order}
        share = rng.choice((0.1, 0.5, 0.9))
        for i, (key, page) in enumerate(changed):
            last = len(files[key].versions[page])
            if model in ("none", "names"):
                pick = 0
            elif model == "data":
                pick = last
            elif model == "prefix":
                pick = last if i < position else 0
            elif model == "suffix":
                pick = 0 if i < position else last
            elif model == "segments":
                pick = last if lucky[key] else 0
            elif model == "one":
                pick = 0 if i == position else last
            elif model == "only":
                pick = last if i == position else 0
            elif model == "subset":
                pick = last if rng.random() < share else 0
            else:
                pick = rng.randrange(last + 1)
            chosen[key, page] = pick
        for key in order:
            file = files[key]
            if model == "none":
                size = len(file.durable)
            elif model in ("data", "one"):
                size = len(file.current)
            else:
                size = rng.choice((len(file.durable), len(file.current), *file.sizes))
            image = bytearray(file.durable[:size].ljust(size, b"\0"))
            for page, versions in file.versions.items():
                at = page * PAGE
                if at >= size:
                    continue
                end = min(at + PAGE, size)
                candidates = (file.durable[at:end].ljust(end - at, b"\0"), *(version[: end - at].ljust(end - at, b"\0") for version in versions))
                if model in ("torn", "garbage"):
                    for sector in range(0, end - at, SECTOR):
                        piece = candidates[rng.randrange(len(candidates))][sector : sector + SECTOR]
                        old = candidates[0][sector : sector + SECTOR]
                        if model == "garbage" and piece != old and not any(old) and rng.random() < 0.3:
                            piece = rng.randbytes(len(piece))
                        image[at + sector : at + sector + len(piece)] = piece
                else:
                    image[at:end] = candidates[chosen[key, page]]
            yield key, bytes(image)


def lay_out(state: State, path: str | os.PathLike[str]) -> None:
    """Make a folder that holds this state."""
    os.mkdir(path, 0o700)
    for name, data in sorted(state.items(), key=lambda entry: (entry[1] is not None, entry[0])):
        full = os.path.join(path, name)
        if data is None:
            os.mkdir(full, 0o700)
        else:
            fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            os.close(fd)


def taken_from(path: str | os.PathLike[str]) -> State:
    """The state of a folder, as files are now: what the death of its process would leave."""
    state: State = {}
    for folder, folders, files in os.walk(path):
        for name in folders:
            state[os.path.relpath(os.path.join(folder, name), path)] = None
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                state[os.path.relpath(os.path.join(folder, name), path)] = file.read()
    return state
